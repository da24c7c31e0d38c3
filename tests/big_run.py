"""Write a run of any size with random rows and time the report on it: `python tests/big_run.py DIR IMAGES METHODS`.

Prints the seconds, the size of the page and the peak memory of writing the report.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from handmade import RunMaker

from jobs.audit import write_report
from pipeline.storage.parts import Footer, publish_part

METHODS = ("gradcam", "gradcam_pp", "layercam", "hirescam", "xgradcam", "scorecam", "iscam", "integrated_gradcam")
METRICS = ("average_drop", "increase", "pointing_game", "energy_in_box", "insertion", "deletion")
CHUNK, CLASSES, SIDE = 500, 1000, 7


def write_run(folder: Path, images: int, methods: int) -> None:
    """Write a run whose maps are spots at random positions."""
    chunks = -(-images // CHUNK)
    maker = RunMaker(folder, shards=[f"shard-{i:05d}.tar" for i in range(chunks)], methods=METHODS[:methods],
                     metrics=METRICS).owned()  # fmt: skip
    for shard in range(chunks):
        rows = _rows(maker, shard, min(CHUNK, images - shard * CHUNK))
        footer = Footer(maker.manifest.run_id, shard, 0, last_chunk=True, images=min(CHUNK, images - shard * CHUNK))
        publish_part(maker.store, rows, footer)


def _rows(maker: RunMaker, shard: int, images: int) -> pa.Table:
    random = np.random.default_rng(shard)
    count = images * len(maker.methods)
    image_N = np.repeat(np.arange(images), len(maker.methods))
    label_I = random.integers(0, CLASSES, images)
    predicted_I = np.where(random.random(images) < 0.8, label_I, random.integers(0, CLASSES, images))
    confidence_I = random.beta(5, 2, images).astype(np.float32)
    constant = {"shard": maker.shards[shard], "chunk": 0, "image_height": 375, "image_width": 500,
                "target_rule": "predicted", "target_logit": 1.0, "method_params": "{}", "layer": "features",
                "map_height": SIDE, "map_width": SIDE, "map_dtype": "u8", "map_min": 0.0, "map_max": 1.0,
                "degenerate": False, "error_stage": None, "error_code": None, "error_detail": None}  # fmt: skip
    own = {
        "image_key": [f"{shard:05d}-{i:04d}" for i in image_N], "label": label_I[image_N],
        "predicted": predicted_I[image_N], "confidence": confidence_I[image_N], "target": predicted_I[image_N],
        "target_confidence": confidence_I[image_N], "method": list(maker.methods) * images,
        "map": [spot.tobytes() for spot in _spots(random, count)],
        **{name: random.random(count).astype(np.float32) for name in maker.metrics},
    }  # fmt: skip
    columns = {name: own[name] if name in own else [constant.get(name)] * count for name in maker.schema.names}
    return pa.Table.from_pydict(columns, schema=maker.schema)


def _spots(random: np.random.Generator, count: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y_N11, x_N11 = random.uniform(1, SIDE - 2, (2, count, 1, 1))
    heat = np.exp(-((rows - y_N11) ** 2 + (columns - x_N11) ** 2) / 4) + 0.1 * random.random((count, SIDE, SIDE))
    heat -= heat.min((1, 2), keepdims=True)
    return np.rint(255 * heat / heat.max((1, 2), keepdims=True)).astype(np.uint8)


if __name__ == "__main__":
    folder, images, methods = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if not folder.exists():
        write_run(folder, images, methods)
    began = time.monotonic()
    page = Path(write_report(str(folder), folder / "_audit"))
    seconds, memory = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{seconds:.0f} s, {page.stat().st_size / 1e6:.2f} MB, {memory:.0f} MB of memory\n")
