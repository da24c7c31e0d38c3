"""The run file: YAML whose keys and values are validated, with all mistakes reported at once."""

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from pipeline.errors import ConfigError, Mistake, Mistakes, masked, nearest, reason
from pipeline.maps.dtypes import MapDtype
from pipeline.settings.about import AboutConfig
from pipeline.settings.data import DataConfig, Positive, Section
from pipeline.settings.explain import ExplainConfig
from pipeline.settings.model import ModelConfig
from pipeline.settings.precision import Precision

Location = tuple[Any, ...]
MOST_SHOWN = 300
"""Characters of a wrong value that a message repeats."""


class ComputeConfig(Section):
    """Where and how fast to run; apart from `precision`, nothing here changes a row by more than rounding."""

    workers: Literal["auto"] | Positive = "auto"
    """Number of workers (--workers), each with its own model; auto: one per GPU, or as many as fit the CPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device of the workers; auto: a GPU where there is one."""
    precision: Precision = "fp32"
    """fp32 (IEEE 754 on every device), tf32 (NVIDIA GPUs from Ampere on) or bf16."""
    batch: Literal["auto"] | Positive = "auto"
    """Most images in one pass, rounded up to a multiple of 16; auto: the fastest in a short trial."""
    gpus_per_worker: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    """The share of a GPU that each worker requests; workers with 0.5 share one in pairs."""
    compile: Literal["auto"] | Annotated[bool, Field(strict=True)] = "auto"
    """Compile the masked passes; auto: in runs of very many passes."""
    address: str | None = None
    """The Ray cluster to join; otherwise Ray starts on this machine."""
    stall_seconds: Literal["auto"] | Positive = "auto"
    """End the run after this many seconds without progress; auto: by the cost of the methods."""

    @property
    def joins_cluster(self) -> bool:
        """Whether a run joins a Ray cluster, instead of starting Ray on this machine."""
        return bool(self.address or os.environ.get("RAY_ADDRESS"))


class OutputConfig(Section):
    """Where the run folder is and how maps are stored."""

    path: str
    """The run folder (--out): a path, or a URL of an object store."""
    maps: MapDtype = "u8"
    """How maps are stored: u8, f16 or f32."""


class RunConfig(Section):
    """A complete run file."""

    data: DataConfig
    """Which images to explain, and where their labels, boxes and class names are."""
    model: ModelConfig
    """The model, its weights, outputs, target layer and preprocessing."""
    explain: ExplainConfig = ExplainConfig()
    """Which classes to explain, with which methods, and which metrics to compute."""
    compute: ComputeConfig = ComputeConfig()
    """Where and how fast to run."""
    output: OutputConfig
    """Where the run folder is and how maps are stored."""
    about: AboutConfig | None = None
    """Who answers for the model, and what it is for: the head of the report. It changes no row."""


def load_config(path: str, settings: Sequence[str] = (), mistakes: Mistakes | None = None) -> RunConfig:
    """Read a run file and apply `KEY=VALUE` settings (dotted keys, YAML values) on top.

    Args:
        path: the run file.
        settings: `KEY=VALUE` texts.
        mistakes: collects the mistakes, so that later checks can add to them; None raises them at once.

    Raises:
        ConfigError: the file cannot be read, holds a secret (raised at once, so that no check can send it anywhere), or
            has any mistake (without `mistakes`).
    """
    raw = _read(path)
    found = Mistakes() if mistakes is None else mistakes
    for setting in settings:
        with found.collecting():
            _apply(raw, setting)
    config, wrong = parse_config(raw)
    found.found.extend(wrong)
    if mistakes is None or any(_secrets(raw)):
        found.raise_if_any()
    return config


def parse_config(raw: dict[str, Any]) -> tuple[RunConfig, list[Mistake]]:
    """Validate a run file's content.

    Returns:
        The config and the mistakes. If there are any, the config is a stand-in: wrong values are replaced by defaults
        and missing ones by empty strings, so that later checks can find their mistakes too.
    """
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        return _stand_in(raw), [*_mistakes(raw, error.errors()), *_images(raw), *_secrets(raw)]
    required = {"model.name": config.model.name, "output.path": config.output.path}
    empty = [Mistake(where, "is empty") for where, value in required.items() if not value]
    return config, [*_images(raw), *empty, *_secrets(raw)]


def _images(raw: dict[str, Any]) -> Iterator[Mistake]:
    """Find out whether the section `data` names images, and chooses them in one way."""
    data = raw.get("data")
    if not isinstance(data, dict):
        return
    if data.get("keys") is not None and data.get("sample") is not None:
        yield Mistake("data.sample", "draws images at random, and data.keys lists them", "leave out one of them")
    shards, manifest = data.get("shards"), data.get("manifest")
    if shards and manifest:
        yield Mistake("data.manifest", "names the images, and so does data.shards", "leave out one of them")
    elif not manifest and (shards == "" or "shards" not in data):
        yield Mistake(
            "data.shards", "is empty" if "shards" in data else "is required", "or data.manifest, a list of images"
        )


def _secrets(raw: object) -> Iterator[Mistake]:
    """Find values that hold a secret: everyone who can read the run can read its run file."""
    waiting, seen = [("", raw)], set[int]()
    for where, value in waiting:
        if isinstance(value, str) and masked(value) != value:
            yield Mistake(where, "seems to hold a secret, which run.json would show", "put it in the environment")
        elif isinstance(value, dict | list) and id(value) not in seen:  # YAML anchors can make cycles and repetitions
            seen.add(id(value))
            if isinstance(value, dict):
                waiting += [(f"{where}.{name}" if where else str(name), inner) for name, inner in value.items()]
            else:
                waiting += [(where, inner) for inner in value]


def _read(path: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError.one("CONFIG", f"cannot read '{path}': {reason(error)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as the date 2024-13-45, or [[[[[...
        raise ConfigError.one("CONFIG", f"'{path}' is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError.one("CONFIG", f"'{path}' has no sections", f"expected {', '.join(RunConfig.model_fields)}")
    return raw


def _apply(raw: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError.one("--set", f"'{setting}' is not KEY=VALUE", "for example explain.seed=1")
    *parents, last = key.split(".")
    section: Any = raw
    for name in parents:
        section = section.setdefault(name, {}) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise ConfigError.one("--set", f"'{key}' does not name a setting")
    try:
        section[last] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError.one("--set", f"'{text}' is not a YAML value") from None


def _mistakes(raw: dict[str, Any], problems: Sequence[Any]) -> list[Mistake]:
    """Convert problems to mistakes, one per place; drop a place when another one inside it is wrong."""
    places: dict[Location, list[Any]] = {}
    for problem in problems:
        places.setdefault(_place(raw, problem), []).append(problem)
    return [
        _mistake(place, found)
        for place, found in places.items()
        if not any(other != place and other[: len(place)] == place for other in places)
    ]


def _place(raw: dict[str, Any], problem: Any) -> Location:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return where in the run file a problem is; pydantic's locations also contain names of union members."""
    place: list[Any] = []
    value: Any = raw
    for name in problem["loc"]:
        if (isinstance(value, dict) and name in value) or (isinstance(value, list) and name in range(len(value))):
            place.append(name)
            value = value[name]
    if problem["type"] in ("missing", "absent", "invalid_key") and place[-1:] != [problem["loc"][-1]]:
        place.append(problem["loc"][-1])
    return tuple(place)


def _mistake(place: Location, problems: Sequence[Any]) -> Mistake:
    where = ".".join(map(str, place))
    kind = problems[0]["type"]
    if kind == "extra_forbidden":
        return Mistake(where, "unknown key", nearest(str(place[-1]), _siblings(place)))
    if kind == "missing":
        return Mistake(where, "is required", _required_keys(str(place[0])) if len(place) == 1 else "")
    if kind == "model_type":
        return Mistake(
            where, f"takes keys, got {problems[0]['input']!r}", f"its keys: {', '.join(_siblings((*place, '')))}"
        )
    wanted = " or ".join(dict.fromkeys(_plain(problem["msg"]) for problem in problems))
    if kind == "absent":  # required by another setting
        return Mistake(where, wanted)
    return Mistake(where, f"{wanted}, got {_shortened(problems[0]['input'])}")


def _shortened(value: object) -> str:
    """Show a value, of a long one only its beginning."""
    shown = repr(value)
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."


def _plain(sentence: str) -> str:
    """Say in our words what pydantic says of a value."""
    return sentence.replace("Input should be", "must be").replace(" or must be ", " or ")


def _required_keys(section: str) -> str:
    """Name the keys that a section must hold."""
    if section == "data":
        return "at least data.shards or data.manifest"
    kind: type[BaseModel] = RunConfig.model_fields[section].annotation  # type: ignore[assignment]
    return f"at least {', '.join(f'{section}.{n}' for n, field in kind.model_fields.items() if field.is_required())}"


def _siblings(place: Location) -> list[str]:
    """List the known keys at the level of an unknown one."""
    sections: list[type[BaseModel]] = [RunConfig]
    for name in place[:-1]:
        annotations = [section.model_fields[name].annotation for section in sections if name in section.model_fields]
        sections = [section for annotation in annotations for section in _sections(annotation)]
    return [name for section in sections for name in section.model_fields if name != place[-1]]


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the sections that a type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def _stand_in(raw: dict[str, Any]) -> RunConfig:
    """Make a valid config from a wrong one: each round removes wrong values or adds empty ones."""
    repaired = {name: copy.deepcopy(section) for name, section in raw.items() if name in RunConfig.model_fields}
    while True:
        try:
            return RunConfig.model_validate(repaired)
        except ValidationError as error:
            once = {problem["loc"][:2]: problem for problem in reversed(error.errors())}  # one problem per value
            for problem in once.values():
                _repair(repaired, problem["loc"], missing=problem["type"] == "missing" and len(problem["loc"]) <= 2)


def _repair(repaired: dict[str, Any], location: Location, *, missing: bool) -> None:
    """Remove a wrong value, in the innermost dict that holds it, or add an empty one where it is missing."""
    section, last = repaired, location[0]
    for name in location[1:]:
        inner = section.get(last)
        if isinstance(inner, dict) and (missing or name in inner):
            section, last = inner, name
    if missing:
        section[last] = {} if section is repaired else ""
    else:
        section.pop(last, None)
