"""What a notebook shows of a run: its facts, the first images with their maps, and the leaderboard.

Nothing here needs torch. Images are read from the shards; where these are gone, maps lie on grey.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.errors import CamatlasError
from pipeline.maps.codec import EncodedMap, decode
from pipeline.maps.gallery import MOST_PICTURES, Page, Shown, chosen
from pipeline.results.leaderboard import MODEL_METRICS, note_of_rules, of_maps
from pipeline.results.source_images import originals
from pipeline.settings.preprocess import Preprocess

if TYPE_CHECKING:
    from pipeline.results.query import Run

Place = tuple[str, str]
"""Shard and image key."""

_MANY_ROWS = 1_000_000
"""Rows from which on the leaderboard takes seconds, so that a notebook does not compute it by itself."""
_PARTS = 20
"""Most parts in which the first images are looked for."""
_BOARD = "SELECT * FROM leaderboard"
_FIRST = """
SELECT shard, image_key, target, any_value(target_name) AS target_name, any_value(label_name) AS label_name,
  any_value(target_confidence) AS target_confidence
FROM explanations WHERE shard = ? AND chunk = ?
GROUP BY shard, image_key, target ORDER BY shard, image_key, target LIMIT ?
"""
_MAPS = """
SELECT method, map, map_height, map_width, map_dtype, map_min, map_max FROM explanations
WHERE shard = ? AND image_key = ? AND target = ? ORDER BY method
"""


def heading(run: "Run") -> str:
    """Return one line, from the manifest alone."""
    identity = run.manifest.identity
    what = f"Run {run.manifest.run_id} of {identity.model.get('name', 'a model')} by {', '.join(identity.methods)}"
    return f"{what}; {len(run.parts)} part{'' if len(run.parts) == 1 else 's'} in {run.store.url}"


def page(run: "Run") -> Page:
    """Return the pictures of the first images, and the leaderboard unless it takes long."""
    methods: Sequence[str] = list(run.manifest.identity.methods)
    if len(run.parts) * run.manifest.identity.chunk_images * len(methods) > _MANY_ROWS:
        count, methods, _ = chosen(MOST_PICTURES, methods)
        note = f'shown: the first images; run.sql("{_BOARD}") gives the leaderboard, which takes a while'
        return Page(heading(run), first_images(run, count, methods), note)
    images = int(run.arrow("SELECT count(*) AS n FROM images WHERE maps > 0")["n"][0].as_py())
    count, methods, note = chosen(images, methods)
    board = of_maps(run.arrow(_BOARD), run.metrics)
    rows = [[_cell(value) for value in row.values()] for row in board.to_pylist()]
    judging = [name for name, fields in run.metrics.items() if fields["name"] in MODEL_METRICS]
    apart = f"not in the table, since they judge the model and not the maps: {', '.join(judging)}" if judging else ""
    of_rules = note_of_rules(board["target_rule"].to_pylist())
    notes = "; ".join(filter(None, (note, apart, of_rules)))
    return Page(heading(run), first_images(run, count, methods), notes, board.column_names, rows)


def first_images(run: "Run", count: int, methods: Sequence[str]) -> list[Shown]:
    """Return the first images (and targets) of a run with the maps of some methods; few parts are read."""
    rows: list[dict[str, Any]] = []
    for part in run.parts[:_PARTS]:
        if len(rows) < count:
            shard = run.manifest.identity.shards[part.shard].name
            rows += run.arrow(_FIRST, [shard, part.chunk, count - len(rows)]).to_pylist()
    pictures = _pictures(run, {(row["shard"], row["image_key"]) for row in rows})
    return [_shown(run, row, pictures, methods) for row in rows]


def _shown(run: "Run", row: Mapping[str, Any], pictures: Mapping[Place, Image.Image], methods: Sequence[str]) -> Shown:
    found = run.arrow(_MAPS, [row["shard"], row["image_key"], row["target"]]).to_pylist()
    maps = {one.pop("method"): one for one in found}
    place = row["shard"], row["image_key"]
    label = "" if row["label_name"] is None else f", label {row['label_name']}"
    confidence = "" if row["target_confidence"] is None else f", {row['target_confidence']:.3f}"
    return Shown(
        str(row["target_name"]),
        f"{row['image_key']}{label}{confidence}",
        pictures.get(place) or _grey(run),
        {name: decode(EncodedMap(*maps[name].values())) for name in methods if name in maps},
    )


def _pictures(run: "Run", places: set[Place]) -> dict[Place, Image.Image]:
    """Read the images of the shards; none that cannot be read again."""
    try:
        return {place: original.image for place, original in originals(run.manifest, places)}
    except CamatlasError:
        return {}


def _grey(run: "Run") -> Image.Image:
    height, width = Preprocess.of(run.manifest.identity.data["preprocess"]).size
    return Image.new("RGB", (width, height), "#808080")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
