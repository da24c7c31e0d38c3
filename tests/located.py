"""Runs over real shards made without a model: images are read and decoded as in a run, their maps are made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from inline import config_of
from pictures import noise, saved
from reference.rows import explanation_row
from tars import Files

from pipeline.data.annotations import read_annotations
from pipeline.data.decode import DecodedSample, decode_chunk
from pipeline.data.inputs import limits_of, reading_of, shards_of
from pipeline.data.sources import Chunk, chunked, images_of, read_shard
from pipeline.explain.rows import ImageFacts, MethodFacts, Row, failure_row, to_table
from pipeline.results.query import Run, open_run
from pipeline.settings.preprocess import Preprocess
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import Footer, publish_part
from pipeline.storage.run_folder import PartName
from schemas.explanation import SCHEMA_VERSION, explanation_schema, without_source
from schemas.manifest import RunIdentity, RunManifest, ShardEntry

RULES: dict[str, Any] = {
    "annotations": "", "formats": ["JPEG", "PNG", "WEBP"], "max_pixels": 64_000_000,
    "preprocess": {"crop": 24, "resize": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3},
}  # fmt: skip
METHODS = ("gradcam", "scorecam")


def jpeg(number: int) -> bytes:
    """Return a JPEG of noise; each number has another size."""
    return saved(noise(40 + number, 36), "JPEG", quality=90)


def boxed_samples(count: int = 4, prefix: str = "") -> Files:
    """Return members of samples with a label, an image and boxes; the boxes of odd ones come before the image."""
    files: Files = []
    for i in range(count):
        key, boxes = f"{prefix}{i:03d}", f'{{"label": 1, "boxes": [[2, 3, {20 + i}, 30]]}}'.encode()
        members = [(f"{key}.json", boxes), (f"{key}.jpg", jpeg(i))]
        files += [(f"{key}.txt", b"a caption"), *(members if i % 2 else members[::-1])]
    return files


def table_file(path: Path, count: int = 10, **options: Any) -> Path:
    """Write a Parquet file as the library `datasets` does, whose keys are paths."""
    images = [{"bytes": jpeg(i), "path": f"pic {i}.jpg"} for i in range(count)]
    boxes = [[[1.0, 2.0, 20.0 + i, 30.0]] for i in range(count)]
    pq.write_table(pa.table({"image": images, "label": [i % 3 for i in range(count)], "boxes": boxes}), path, **options)
    return path


def make_run(folder: Path, data: dict[str, Any], *, older: frozenset[int] = frozenset(), chunk: int = 3) -> Path:
    """Write the run of a section `data`; the parts of some ordinals are those that an earlier version wrote."""
    fields = {"data": data, "model": {"name": "m"}, "output": {"path": str(folder)}}
    config = config_of(fields)
    shards = shards_of(config.data)
    reading = reading_of(config.data, read_annotations(config, shards))
    identity = RunIdentity(
        code_version="0", schema_version=SCHEMA_VERSION,
        shards=tuple(ShardEntry(name=s.name, kind=s.kind, size=s.size, fingerprint=s.fingerprint) for s in shards),
        chunk_images=chunk, data=RULES, model={"name": "m"}, targets="predicted",
        methods={name: {} for name in METHODS}, metrics={}, seed=0, precision="fp32", maps="u8",
    )  # fmt: skip
    manifest = RunManifest(
        identity=identity, locations=tuple(shard.location for shard in shards), config=config.model_dump(mode="json"),
        packages={}, code={}, started_at="",
    )  # fmt: skip
    store = LocalStore(folder)
    take_ownership(store, manifest)
    parts = 0
    for shard in shards:
        for piece in chunked(read_shard(shard, reading), shard, chunk):
            table = rows_of(piece)
            if parts in older:
                table = table.select(without_source(table.schema).names)
            publish_any(store, table, manifest, PartName(shard.ordinal, piece.ordinal), piece)
            parts += 1
    return folder


def rows_of(chunk: Chunk) -> pa.Table:
    """Decode a chunk, and make up the rows of its images."""
    decoded = decode_chunk(chunk, Preprocess.of(RULES["preprocess"]), limits_of(RULES))
    rows: list[Row] = [failure_row(failure, chunk.ordinal) for failure in decoded.failures]
    for sample in decoded.samples:
        facts = facts_of(sample, chunk)
        for name in METHODS:
            grid = np.arange(6, dtype=np.float32).reshape(2, 3)
            rows.append(explanation_row(facts, MethodFacts(name, "{}", "layer"), grid, {}, "u8"))
    return to_table(rows, explanation_schema())


def facts_of(sample: DecodedSample, chunk: Chunk) -> ImageFacts:
    """Return the columns that all rows of an image share."""
    return ImageFacts(
        sample.key, chunk.shard.name, chunk.ordinal, *sample.size, sample.label, 1, 0.5, 1, "predicted", 0.5, 1.0,
        **sample.extent._asdict(),
    )  # fmt: skip


def publish_any(store: LocalStore, table: pa.Table, manifest: RunManifest, part: PartName, chunk: Chunk) -> None:
    """Publish a part, also one of an earlier version, whose columns this version does not write."""
    images = sum(1 for _ in images_of((*chunk.samples, *chunk.failures)))
    footer = Footer(manifest.run_id, part.shard, part.chunk, chunk.last, images)
    if table.schema.equals(explanation_schema()):
        publish_part(store, table, footer)
        return
    store.publish(part.file, older_part(table, footer))


def older_part(table: pa.Table, footer: Footer) -> bytes:
    """Encode rows without the columns of the source, as earlier versions did."""
    from pipeline.storage.checksums import checksummed

    older = table.select(without_source(table.schema).names)
    return checksummed(older.replace_schema_metadata(footer.to_metadata()), use_dictionary=["shard", "method"])


def opened(folder: Path, data: dict[str, Any], **settings: Any) -> Run:
    """Make a run and open it."""
    return open_run(make_run(folder, data, **settings))


def places_of(run: Run) -> list[tuple[str, str]]:
    """List the images of a run that have a map."""
    rows = run.arrow("SELECT DISTINCT shard, image_key FROM explanations ORDER BY ALL").to_pylist()
    return [(row["shard"], row["image_key"]) for row in rows]
