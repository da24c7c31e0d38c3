"""Make a run of any size and measure its report: `python tests/report_scale.py DIR IMAGES [IMAGES_A_PART]`.

The run has two methods, four metrics, 1,000 classes and a column of metadata. It is written by the store's own writers,
without a model or images. Prints the seconds, the size of the page, and the peak of the resident memory,
libraries included, of the process that writes the report, and of the largest of its children.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from handmade import RunMaker

from pipeline.storage.parts import Footer, publish_part
from schemas.explanation import described, explanation_schema
from schemas.manifest import RunIdentity

METHODS = ("gradcam", "layercam")
METRICS = ("average_drop", "deletion", "energy_in_box", "insertion")
CLASSES, SIDE, PART_IMAGES, SITES = 1000, 7, 1000, 40
SHARD_IMAGES = 10_000
_METADATA = pa.map_(pa.string(), pa.string())
_MEASURE = """
import json, resource, sys, time
from pathlib import Path
from jobs.audit import write_report
began = time.monotonic()
page = Path(write_report(sys.argv[1], Path(sys.argv[2])))
usage = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps(
    {"seconds": time.monotonic() - began, "bytes": page.stat().st_size, "own": usage[0], "children": usage[1]}
))
"""


class ScaledRun(RunMaker):
    """A run of any number of images, with metadata, whose first shard has wrong labels for every second image.

    Images of `site-00` are predicted wrongly more often.
    """

    @property
    def identity(self) -> RunIdentity:
        """Return the identity, with the column of metadata."""
        known = super().identity
        return known.model_copy(update={"data": {**known.data, "metadata": ["site", "age"]}})

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of the parts, with metadata."""
        fields = [described(name, pa.float32(), "", name) for name in sorted(self.metrics)]
        return explanation_schema(fields, has_metadata=True)


def write_run(folder: Path, images: int, part_images: int = PART_IMAGES, seed: int = 0, shift: float = 0.0) -> None:
    """Write a run whose maps are spots at random positions; `shift` moves its classes, confidences and metrics."""
    shards = -(-images // SHARD_IMAGES)
    maker = ScaledRun(folder, shards=[f"shard-{seed}-{i:05d}.tar" for i in range(shards)], methods=METHODS,
                      metrics=METRICS, seed=seed).owned()  # fmt: skip
    for shard in range(shards):
        inside = min(SHARD_IMAGES, images - shard * SHARD_IMAGES)
        chunks = -(-inside // part_images)
        for chunk in range(chunks):
            count = min(part_images, inside - chunk * part_images)
            footer = Footer(maker.manifest.run_id, shard, chunk, chunk == chunks - 1, count)
            publish_part(maker.store, rows_of(maker, shard, chunk, count, shift), footer)


def rows_of(maker: RunMaker, shard: int, chunk: int, images: int, shift: float = 0.0) -> pa.Table:
    """Return the rows of one part, column by column."""
    random = np.random.default_rng([maker.seed, shard, chunk])
    methods, count = len(maker.methods), images * len(maker.methods)
    site_I = random.integers(0, SITES, images)
    label_I = (CLASSES * random.random(images) ** (1 + 5 * shift)).astype(int)
    right = np.where(site_I == 0, 0.6, 0.8) - (0.5 if shard == 0 else 0)
    predicted_I = np.where(random.random(images) < right, label_I, random.integers(0, CLASSES, images))
    confidence_I = np.clip(random.beta(5, 2, images) - shift, 0, 1).astype(np.float32)
    site_K = pa.array([f"site-{i:02d}" for i in range(SITES)])
    age_I = random.integers(20, 90, images)
    items = pa.array(
        np.stack([site_K.take(pa.array(site_I)).to_numpy(zero_copy_only=False), age_I.astype(str)], 1).ravel()
    )
    keys = pa.array(["site", "age"] * images)
    columns: dict[str, Any] = {
        "image_key": pa.array([f"{shard:05d}-{chunk:04d}-{i:05d}" for i in range(images)]),
        "shard": constant(maker.shards[shard], pa.string(), images), "chunk": constant(chunk, pa.int32(), images),
        "label": pa.array(label_I, pa.int32()), "predicted": pa.array(predicted_I, pa.int32()),
        "confidence": pa.array(confidence_I), "target": pa.array(predicted_I, pa.int32()),
        "target_confidence": pa.array(confidence_I), "target_rule": constant("predicted", pa.string(), images),
        "target_logit": pa.array(random.normal(8, 2, images).astype(np.float32)),
        "image_height": constant(375, pa.int32(), images), "image_width": constant(500, pa.int32(), images),
        "metadata": pa.MapArray.from_arrays(np.arange(images + 1, dtype=np.int32) * 2, keys, items),
    }  # fmt: skip
    repeated = pa.array(np.repeat(np.arange(images), methods))
    columns = {name: column.take(repeated) for name, column in columns.items()}
    columns |= {
        "method": pa.array(list(maker.methods) * images), "method_params": constant("{}", pa.string(), count),
        "layer": constant("features", pa.string(), count), "map": _spots(random, count),
        "map_height": constant(SIDE, pa.int32(), count), "map_width": constant(SIDE, pa.int32(), count),
        "map_dtype": constant("u8", pa.string(), count), "map_min": constant(0.0, pa.float32(), count),
        "map_max": constant(1.0, pa.float32(), count), "degenerate": constant(False, pa.bool_(), count),
        **{name: pa.array(np.clip(random.random(count) - shift, 0, 1).astype(np.float32)) for name in maker.metrics},
        **{f"error_{name}": pa.nulls(count, pa.string()) for name in ("stage", "code", "detail")},
    }  # fmt: skip
    known = [columns.get(field.name, pa.nulls(count, field.type)) for field in maker.schema]
    return pa.table(known, schema=maker.schema)


def constant(value: object, dtype: pa.DataType, count: int) -> pa.Array:
    """Return an array of one repeated value."""
    return pa.repeat(pa.scalar(value, dtype), count)


def _spots(random: np.random.Generator, count: int) -> pa.Array:
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    y_N11, x_N11 = random.uniform(1, SIDE - 2, (2, count, 1, 1)).astype(np.float32)
    heat = np.exp(-((rows - y_N11) ** 2 + (columns - x_N11) ** 2) / 4)
    heat -= heat.min((1, 2), keepdims=True)
    cells = np.rint(255 * heat / heat.max((1, 2), keepdims=True)).astype(np.uint8)
    return pa.Array.from_buffers(pa.binary(SIDE * SIDE), count, [None, pa.py_buffer(cells.tobytes())]).cast(pa.binary())


def measure(run: Path, report: Path) -> dict[str, float]:
    """Write the report in a process of its own; return seconds, bytes of the page, and peaks of memory in megabytes."""
    command = [sys.executable, "-c", _MEASURE, str(run), str(report)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    """Write the run if it is missing, then its report, and print the figures."""
    folder, images = Path(sys.argv[1]), int(sys.argv[2])
    if not folder.exists():
        began = time.monotonic()
        write_run(folder, images, int(sys.argv[3]) if len(sys.argv) > 3 else PART_IMAGES)
        sys.stdout.write(f"written in {time.monotonic() - began:.0f} s\n")
    found = measure(folder, folder / "_audit")
    sys.stdout.write(
        f"{images:,} images: {found['seconds']:.0f} s, peak of {found['own']:.0f} MB (of a child process "
        f"{found['children']:.0f} MB), page of {found['bytes'] / 1e6:.2f} MB\n"
    )


if __name__ == "__main__":
    main()
