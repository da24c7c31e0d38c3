"""Measures how far the methods of a run agree, from its stored maps, without running the model.

For each pair of methods: rank correlation and structural similarity of their maps of the same image and target, as
means with 95 % intervals over a sample. Methods that agree are not necessarily right.
"""

import itertools

import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.maps.codec import FloatArray
from pipeline.maps.similarity import enlarged, mean_interval, spearman, ssim
from pipeline.results.query import MAP_COLUMNS, Run, decode_row

SAMPLE = """
SELECT shard, image_key, min_by(target, md5(concat_ws(chr(31), shard, image_key, target))) AS target
FROM explanations GROUP BY shard, image_key
ORDER BY md5(concat_ws(chr(31), shard, image_key)), shard, image_key LIMIT ?
"""
"""Selects images, and one target of each, by a hash of their names: independent of the order of the rows."""

_MAPS = f"""
SELECT shard, image_key, target, {", ".join(MAP_COLUMNS)} FROM explanations
JOIN agreement_sample USING (shard, image_key, target) WHERE method = ? ORDER BY shard, image_key, target
"""  # noqa: S608 - constants only

AGREEMENT_SCHEMA = pa.schema(
    [
        pa.field("method", pa.string(), nullable=False),
        pa.field("other", pa.string(), nullable=False),
        pa.field("maps", pa.int32(), nullable=False),
        *(pa.field(name, pa.float32()) for name in ("spearman", "spearman_half_width", "ssim", "ssim_half_width")),
    ]
)


def agreement(run: Run, images: int = 200) -> pa.Table:
    """Compare every two methods of a run on a sample of images.

    Args:
        run: the run.
        images: maximum number of images to compare, with one target each.

    Returns:
        One row per pair of methods: number of maps compared (degenerate ones are left out), mean Spearman and SSIM,
        and half the width of the 95 % interval of each.

    Raises:
        ConfigError: the run has only one method, or no explanation.
    """
    methods = list(run.manifest.identity.methods)
    if len(methods) < 2:
        raise ConfigError.one("RUN", "agreement needs at least two methods", f"this run has {', '.join(methods)}")
    with run.with_table("agreement_sample", run.arrow(SAMPLE, [images])):
        maps = {method: _read_heatmaps(run, method) for method in methods}
    if not any(maps.values()):
        raise ConfigError.one("RUN", "it holds no explanation", "see the view failures")
    rows = [_compare(first, second, maps) for first, second in itertools.combinations(methods, 2)]
    return pa.Table.from_pylist(rows, schema=AGREEMENT_SCHEMA)


Place = tuple[str, str, int]


def _read_heatmaps(run: Run, method: str) -> dict[Place, FloatArray]:
    rows = run.arrow(_MAPS, [method]).to_pylist()
    return {(row["shard"], row["image_key"], row["target"]): enlarged(decode_row(row)[None])[0] for row in rows}


def _compare(first: str, second: str, maps: dict[str, dict[Place, FloatArray]]) -> dict[str, object]:
    places = [place for place in maps[first] if place in maps[second]]
    pair = [np.stack([maps[method][place] for place in places]) for method in (first, second)] if places else []
    rank, rank_half, count = mean_interval(spearman(*pair) if pair else np.empty(0))
    alike, alike_half, _ = mean_interval(ssim(*pair) if pair else np.empty(0))
    return {
        "method": first, "other": second, "maps": count, "spearman": rank, "spearman_half_width": rank_half,
        "ssim": alike, "ssim_half_width": alike_half,
    }  # fmt: skip
