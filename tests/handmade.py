"""Small run folders with every kind of row, written without a model, images or Ray."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from reference.rows import explanation_row

from pipeline.data.sources import Draw
from pipeline.data.sources.shards import Failure
from pipeline.explain.rows import ImageFacts, MethodFacts, Row, failure_row, to_table
from pipeline.metrics import METRICS
from pipeline.settings.registry import parameters
from pipeline.storage.base import Store
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import Footer, progress, publish_part, sweep
from pipeline.storage.run_folder import PartName
from schemas.explanation import SCHEMA_VERSION, SHARD_STAGE, described, explanation_schema
from schemas.manifest import RunIdentity, RunManifest, ShardEntry

PARTS = (PartName(0, 0), PartName(0, 1), PartName(1, 0))
"""The parts of two shards: one with two chunks, one with a single chunk."""

GRID = (3, 4)


@dataclass(frozen=True)
class RunMaker:
    """Writes a small, valid run: 3 chunks, 5 images, 2 methods.

    Chunk 0 of shard 0 holds two explained images, chunk 1 one image on which the second method failed. The chunk of
    shard 1 holds an explained image, one that could not be decoded, and damage to the shard.

    Attributes:
        folder: the run folder; need not exist.
        shards, methods, metrics: their names; any text is allowed.
        prefix: prefix of the image keys.
        seed: seed in the identity, so that two runs can differ.
        take: images to take per shard, in the manifest; None for all.
        draw: the sample in the manifest; None for no sampling.
    """

    folder: Path
    shards: Sequence[str] = ("a.tar", "b.tar")
    methods: Sequence[str] = ("gradcam", "scorecam")
    metrics: Sequence[str] = ("average_drop", "pointing_game")
    prefix: str = ""
    seed: int = 0
    take: int | None = None
    draw: Draw | None = None
    store: LocalStore = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", LocalStore(self.folder))

    @property
    def identity(self) -> RunIdentity:
        """Return the identity of the run, which determines its rows."""
        kinds = {name: METRICS.get(name, METRICS["average_drop"]) for name in self.metrics}
        return RunIdentity(
            code_version="0.1.0",
            schema_version=SCHEMA_VERSION,
            shards=tuple(
                ShardEntry(name=name, kind="tar", size=1000, fingerprint=f"print-{ordinal}", take=self.take)
                for ordinal, name in enumerate(self.shards)
            ),
            chunk_images=2,
            data={
                "annotations": "none",
                "formats": ["JPEG"],
                "preprocess": {"crop": 96, "resize": None, "mean": (0.5, 0.25, 0.125)},
            }
            | ({} if self.draw is None else {"sample": vars(self.draw)}),
            model={"name": "toy", "weights_sha256": "00", "layer": "features"},
            targets="predicted",
            methods={name: {"name": name} for name in self.methods},
            metrics={name: parameters(kind()) for name, kind in kinds.items()},
            seed=self.seed,
            precision="fp32",
            maps="u8",
        )

    @property
    def manifest(self) -> RunManifest:
        """Return the manifest of the run."""
        return RunManifest(
            identity=self.identity,
            locations=tuple(f"/data/{name}" for name in self.shards),
            classes=("cat", "dog", "owl"),
            config={},
            packages={"numpy": "2"},
            code={"version": "0.1.0"},
            started_at="2024-01-01T00:00:00+00:00",
        )

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of the parts."""
        return explanation_schema([described(name, pa.float32(), "", name) for name in sorted(self.metrics)])

    def image(self, part: PartName, number: int) -> str:
        """Return the key of an image of a chunk."""
        return f"{self.prefix}{part.shard}-{part.chunk}-{number}"

    def rows(self, part: PartName) -> list[Row]:
        """Return the rows of a chunk, in order of creation."""
        if part.chunk == 1:
            return self.explained(part, 0, failing=self.methods[-1])
        if part.shard == 0:
            return self.explained(part, 0) + self.explained(part, 1)
        shard = self.shards[part.shard]
        unreadable = Failure(self.image(part, 1), shard, "decode", "truncated", "half of it is gone")
        damage = Failure(f"{shard}@512", shard, SHARD_STAGE, "tar", "no header here")
        return [*self.explained(part, 0), failure_row(unreadable, part.chunk), failure_row(damage, part.chunk)]

    def explained(self, part: PartName, number: int, failing: str = "") -> list[Row]:
        """Return the rows of one image; the method `failing` produced NaN."""
        rows = []
        for place, method in enumerate(self.methods):
            map_uv = np.arange(12, dtype=np.float32).reshape(GRID) * (1 + number) - place
            facts = MethodFacts(method, "{}", "features")
            values = dict.fromkeys(self.metrics, 0.25 * (1 + number + place))
            if method == failing:
                map_uv = np.full_like(map_uv, np.nan)
            rows.append(explanation_row(self._facts(part, number), facts, map_uv, values, "u8"))
        return rows

    def table(self, part: PartName) -> pa.Table:
        """Return the rows of a chunk as a table."""
        return to_table(self.rows(part), self.schema)

    def footer(self, part: PartName, run_id: str = "") -> Footer:
        """Return the footer of a chunk."""
        images = 1 if part.chunk == 1 else 2
        return Footer(run_id or self.manifest.run_id, part.shard, part.chunk, part != PARTS[0], images)

    def owned(self) -> "RunMaker":
        """Take ownership of the folder and return self."""
        take_ownership(self.store, self.manifest)
        return self

    def publish(self, *parts: PartName) -> "RunMaker":
        """Publish chunks with their receipts and return self."""
        for part in parts:
            publish_part(self.store, self.table(part), self.footer(part))
        return self

    def work(self, store: Store) -> None:
        """Do what a driver does in a store: take ownership, find finished chunks, publish the others, sweep."""
        take_ownership(store, self.manifest)
        done = progress(store).done
        for part in PARTS:
            if part.chunk not in done.get(part.shard, ()):
                publish_part(store, self.table(part), self.footer(part))
        sweep(store)

    def complete(self) -> "RunMaker":
        """Write the whole run and return self."""
        return self.owned().publish(*PARTS)

    def _facts(self, part: PartName, number: int) -> ImageFacts:
        return ImageFacts(
            image_key=self.image(part, number),
            shard=self.shards[part.shard],
            chunk=part.chunk,
            image_height=48,
            image_width=64,
            label=None if number else 1,
            predicted=number,
            confidence=0.75,
            target=number,
            target_rule="predicted",
            target_confidence=0.75,
            target_logit=-2.5,
        )


class TwoRules(RunMaker):
    """A run that explains labels beside predictions: rows of the rule `label` are of wrong predictions only."""

    def explained(self, part: PartName, number: int, failing: str = "") -> list[Row]:
        """Return the rows of the predicted class, and of the label where it is another class."""
        rows = super().explained(part, number, failing)
        of_label = [row | {"target": row["label"], "target_rule": "label"} for row in rows]
        return [*rows, *(row for row in of_label if row["label"] not in (None, row["predicted"]))]
