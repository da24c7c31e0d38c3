"""A small handmade run with original images: two Parquet shards, boxes, a curve metric, and optionally two targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from handmade import PARTS, RunMaker
from pictures import noise, saved

from pipeline.data.sources.fingerprint import edges_digest
from pipeline.explain.rows import Row
from pipeline.storage.run_folder import PartName
from schemas.explanation import described, explanation_schema, is_curve
from schemas.manifest import RunIdentity, RunManifest, ShardEntry

CROP = 32
BOX = (16.0, 12.0, 48.0, 24.0)
"""Box in an image of 64 x 48 pixels, which is resized to CROP x CROP."""
CURVE = "insertion_curve"


@dataclass(frozen=True)
class PicturedRun(RunMaker):
    """A run whose original images exist: 7 explanations of 4 images, and 3 failures.

    The first image of each chunk has a box. If `targets` is 2, the first image of all has two explained classes, which
    adds two explanations.
    """

    shards: Sequence[str] = ("a.parquet", "b.parquet")
    metrics: Sequence[str] = ("average_drop", CURVE, "pointing_game")
    classes: tuple[str, ...] = ("cat", "dog", "owl")
    targets: int = 1

    @property
    def data(self) -> Path:
        """Return the folder of the shards."""
        return self.folder.parent / "data"

    @property
    def identity(self) -> RunIdentity:
        entries = [self._entry(path) for path in sorted(self.data.glob("*.parquet"))]
        data = {"formats": ["JPEG"], "max_pixels": 10_000, "preprocess": {"crop": CROP, "resize": None}}
        return super().identity.model_copy(update={"shards": tuple(entries), "data": data})

    @staticmethod
    def _entry(path: Path) -> ShardEntry:
        """Identify a shard as `list_shards` does, but without the subprocess that counts its rows."""
        size = path.stat().st_size
        with path.open("rb") as file:
            return ShardEntry(name=path.name, kind="parquet", size=size, fingerprint=edges_digest(file, size))

    @property
    def manifest(self) -> RunManifest:
        config = {
            "data": {"shards": str(self.data)},
            "model": {"name": "torchvision/resnet18"},
            "output": {"path": str(self.folder)},
        }
        locations = tuple(str(self.data / name) for name in self.shards)
        update = {"config": config, "classes": self.classes, "locations": locations}
        return super().manifest.model_copy(update=update)

    @property
    def schema(self) -> pa.Schema:
        kinds = {name: pa.list_(pa.float32()) if is_curve(name) else pa.float32() for name in sorted(self.metrics)}
        return explanation_schema([described(name, kind, "", f"what {name} is") for name, kind in kinds.items()])

    def rows(self, part: PartName) -> list[Row]:
        rows = super().rows(part)
        for row in rows:
            row |= {CURVE: [0.0, 0.5, 1.0]} if row.get("map") else {}
        again = [row | {"target": 2, "target_rule": "label"} for row in rows[:2]]
        return rows + (again if self.targets == 2 and part == PARTS[0] else [])

    def complete(self) -> "PicturedRun":
        self.data.mkdir(parents=True)
        for ordinal, shard in enumerate(self.shards):
            parts = [part for part in PARTS if part.shard == ordinal]
            keys = [self.image(part, number) for part in parts for number in range(2)]
            pictures = [
                {
                    "key": key,
                    "image": saved(noise(64, 48 + 16 * (i % 2)), "JPEG"),
                    "boxes": [BOX] if i % 2 == 0 else None,
                }
                for i, key in enumerate(keys)
            ]
            pq.write_table(pa.Table.from_pylist(pictures), self.data / shard)
        super().complete()
        return self
