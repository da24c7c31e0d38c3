"""Writes a new run file as YAML with comments: what was found, what was chosen, and what else one may want."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.planning.first_data import FirstData
from pipeline.planning.first_model import ChosenModel
from pipeline.planning.machine import Machine
from pipeline.run.paths import absolute_path
from pipeline.settings.run_file import RunConfig, parse_config

METHODS = ("gradcam", "gradcam_pp", "shuffled_gradcam")
METRICS = ("average_drop", "complexity")
OF_BOXES = ("pointing_game", "energy_in_box")
_WIDTH = 100


def run_file_text(data: FirstData, model: ChosenModel, machine: Machine, output: str, schema: str) -> str:
    """Return the text of a run file.

    Args:
        data, model: what was chosen.
        machine: where it was chosen.
        output: the run folder.
        schema: the name of the JSON Schema beside the run file.
    """
    lines = [
        f"# yaml-language-server: $schema={schema}",
        *_comment("A run file of camatlas, written by `camatlas init`. `camatlas schema` prints every key with its "
                  "meaning."),
        "",
        *_comment(f"Found: {data.kind}."),
        *_comments(data.account.lines()),
        *_comments(notes_of(data, model)),
        *_section("data", data.fields),
        *_comment("limit: 100             # only the first images, as with `explain --limit 100`; it may grow later",
                  indent="  "),
        "",
        *_comments(model.notes),
        *_section("model", model.fields),
        "",
        *_comment("`camatlas methods` and `camatlas metrics` list all of them. shuffled_gradcam is a control: a metric "
                  "that ranks it with the others says nothing."),
        *_section("explain", explain_section(data, model)),
        "",
        *_comment(f"This machine has {machine}. auto: one worker per GPU, or as many as fit the CPUs."),
        *_section("compute", {"workers": "auto", "precision": "fp32"}),
        "",
        *_section("output", {"path": output}),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def checked_config(text: str) -> RunConfig:
    """Read the text of a run file; raise ConfigError if it has a mistake."""
    config, mistakes = parse_config(yaml.safe_load(text))
    if mistakes:
        raise ConfigError(mistakes)
    return config


def notes_of(data: FirstData, model: ChosenModel) -> tuple[str, ...]:
    """Return what the user should know of the data, one sentence each."""
    classes = data.account.classes
    by_index = [one for one in classes if one.written == str(one.index)]
    if not model.is_imagenet or not by_index or _targets(data, model) != "predicted":
        return data.notes
    shown = ", ".join(f"{one.index} {one.name}" for one in by_index[:3])
    return (
        *data.notes,
        f"Labels are read as the classes of {model.fields['name']}: {shown}. If they mean other classes, name the "
        "model of these classes.",
    )


def explain_section(data: FirstData, model: ChosenModel) -> dict[str, Any]:
    """Choose classes, methods and metrics: those of labels and boxes only where the data has them."""
    metrics = METRICS if model.outputs is not None else METRICS[1:]
    return {
        "targets": _targets(data, model),
        "methods": list(METHODS),
        "metrics": [*metrics, *(OF_BOXES if has_boxes(data) else ())],
    }


def _targets(data: FirstData, model: ChosenModel) -> str | list[str]:
    """Explain the predicted class, and that of the label where labels are certain to be classes of the model."""
    account = data.account
    certain = account.images and account.labelled == account.images and not account.several and not account.unreadable
    return ["predicted", "label"] if certain and len(account.classes) == model.outputs else "predicted"


def has_boxes(data: FirstData) -> bool:
    """Return whether an image is known to have boxes."""
    inside = data.account.inside
    return bool(data.account.boxed or (inside is not None and inside.boxes))


def _section(name: str, fields: Mapping[str, Any]) -> Iterator[str]:
    """Write a section, one key a line; YAML quotes what needs it."""
    yield f"{name}:"
    for key, value in fields.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=2**20).removesuffix("\n")
        yield f"  {key}: {text.removesuffix('...').rstrip()}"


def _comments(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in _comment(text)]


def _comment(text: str, indent: str = "") -> list[str]:
    """Write a text as lines of comment; whatever a name in the data may hold, it stays within them."""
    plain = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    in_columns = " " * 10 if "  " in plain[:11] else ""
    wrapped = textwrap.wrap(plain, _WIDTH, subsequent_indent=in_columns, break_long_words=False, break_on_hyphens=False)
    return [f"{indent}# {line}" for line in wrapped]


def free_output(source: Path, beside: Path) -> str:
    """Return the path of a run folder that does not exist: beside the run file, and outside of the data."""
    data, place = Path(absolute_path(str(source))), Path(absolute_path(str(beside)))
    name = (data.name if data.is_dir() else data.stem) or "images"
    if place == data or data in place.parents:
        place = data.parent
    names = (f"{name}_run", *(f"{name}_run_{number}" for number in range(2, 10_000)))
    return str(next(place / each for each in names if not (place / each).exists()))
