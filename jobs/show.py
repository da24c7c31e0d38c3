"""camatlas show: draw images with their maps from every method of a run, as a PNG contact sheet."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.support.console import command, err, leave_after, out, printable
from pipeline.errors import ConfigError

PANEL_WIDTH = 224
"""Minimum width of a panel in pixels, so that captions fit."""

_SOME_KEYS = "SELECT image_key FROM images LIMIT 5"


@command
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY...", help="image keys; SHARD/KEY for a key in several shards")
    ] = None,
    output: Annotated[str | None, typer.Option("--out", help="PNG file to write (default: KEY.png)")] = None,
) -> int:
    """Draw images with the maps of every method; print the path of the PNG file."""
    if not keys:
        example = " ".join(["camatlas query", shlex.quote(run), f'"{_SOME_KEYS}"'])
        raise ConfigError.one("KEY", "no image is named", f"some keys of the run: {example}")
    from pipeline.maps.pictures import stacked
    from pipeline.results.one_image import ImageReader
    from pipeline.results.query import open_run

    path = Path(output or _file_name(keys[0]))
    with open_run(run) as opened, ImageReader(opened) as reader:
        sheets = [_sheet(opened.manifest, reader, _explained(opened, key)) for key in keys]
    try:
        stacked(sheets).save(path)
    except (OSError, ValueError) as error:
        raise ConfigError.one("--out", f"cannot write '{path}': {error}") from None
    out.say(str(path))
    return 0


def _file_name(key: str) -> str:
    """Return the name of the picture of a key; it is never the key itself, which may be an image in this folder."""
    name = re.sub(r"[^\w.-]+", "_", key)
    shorter = f"{name.removesuffix('.png')}.png"
    return shorter if shorter != key else f"{name}.png"


def _explained(opened: Any, key: str) -> list[dict[str, Any]]:  # noqa: ANN401 - pipeline.results.query is imported late
    """Return the rows of one image that have a map; print its failures."""
    rows = _rows(opened, key)
    if not rows:
        raise ConfigError.one("KEY", f"the run has no image '{key}'", _hint(opened, key))
    shards = sorted({row["shard"] for row in rows})
    if len(shards) > 1:
        raise ConfigError.one("KEY", f"'{key}' is in {len(shards)} shards", f"choose one, such as {shards[0]}/{key}")
    for row in rows:
        if row["error_code"] is not None:
            err.say(f"{row['method'] or 'the image'} failed: {row['error_stage']}/{row['error_code']}")
    explained = [row for row in rows if row["map"] is not None]
    if not explained:
        raise ConfigError.one("KEY", f"'{key}' was not explained", "see the view failures")
    return explained


_ROWS = "SELECT * FROM parts WHERE image_key = ? ORDER BY shard, target_confidence DESC, target, method"


def _rows(opened: Any, key: str) -> list[dict[str, Any]]:  # noqa: ANN401 - pipeline.results.query is imported late
    """Return the rows of images named KEY or SHARD/KEY; filters by image key alone, which is the fast lookup."""
    rows: list[dict[str, Any]] = opened.arrow(_ROWS, [key]).to_pylist()
    for slash in re.finditer("/", key):
        shard, image = key[: slash.start()], key[slash.end() :]
        rows += [row for row in opened.arrow(_ROWS, [image]).to_pylist() if row["shard"] == shard]
    return rows


_KEYS = "SELECT image_key FROM images ORDER BY jaro_winkler_similarity(image_key, ?) DESC LIMIT 1"


def _hint(opened: Any, key: str) -> str:  # noqa: ANN401 - pipeline.results.query is imported late
    nearest = opened.arrow(_KEYS, [key]).to_pylist()
    return f"did you mean '{nearest[0]['image_key']}'?" if nearest else ""


def _sheet(manifest: Any, reader: Any, rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - imported late
    from pipeline.maps.pictures import Panel, at_least, boxed, contact_sheet, overlay
    from pipeline.results.query import decode_row

    first = rows[0]
    place = first["shard"], first["image_key"]
    original = dict(reader.originals([place])).get(place)
    if original is None:
        err.say(f"{reader.note_for(*place) or 'The image cannot be read again.'} Only the maps are drawn.")
        panels, canvas = [], _grey(manifest)
    else:
        canvas, boxes = at_least(original.image, PANEL_WIDTH, original.boxes_xyxy)
        caption = _label_and_prediction(manifest, first) + (f"\n{original.note}" if original.note else "")
        panels = [Panel("image", caption, boxed(canvas, boxes))]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    for row in rows:
        title = row["method"] if len(targets) == 1 else f"{row['method']}: {manifest.class_name(row['target'])}"
        panels.append(Panel(title, _metric_values(manifest, row), overlay(canvas, decode_row(row))))
    explained = ", ".join(map(manifest.class_name, targets))
    heading = printable(f"{first['image_key']}: explained {explained}")
    heading = heading.replace("\n", "\\n")
    return contact_sheet(heading, panels)


def _grey(manifest: Any) -> Any:  # noqa: ANN401 - imported late
    """Make a grey picture in place of a lost original."""
    from PIL import Image

    from pipeline.maps.pictures import at_least
    from pipeline.settings.preprocess import Preprocess

    height, width = Preprocess.of(manifest.identity.data["preprocess"]).size
    return at_least(Image.new("RGB", (width, height), "#808080"), PANEL_WIDTH, None)[0]


def _label_and_prediction(manifest: Any, row: dict[str, Any]) -> str:  # noqa: ANN401 - imported late
    if row["predicted"] is None:  # raw outputs have no classes, and a label is a number
        label = "no label" if row["label"] is None else f"label {row['label']}"
        return f"{label}\noutput {row['target_logit']:.4g}"
    label = "no label" if row["label"] is None else f"label {manifest.class_name(row['label'])}"
    return f"{label}\npredicted {manifest.class_name(row['predicted'])}, {row['confidence']:.2f}"


def _metric_values(manifest: Any, row: dict[str, Any]) -> str:  # noqa: ANN401 - imported late
    from schemas.explanation import is_curve

    numbers = [name for name in manifest.identity.metrics if not is_curve(name) and row[name] is not None]
    values = [f"{name} {row[name]:.2f}" for name in numbers]
    return "\n".join((["constant map"] if row["degenerate"] else []) + values)


if __name__ == "__main__":
    leave_after(lambda: typer.run(show))
