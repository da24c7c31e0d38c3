"""Datasets with one known defect or none, and the expected findings of an audit of a run over them.

The seed of a dataset determines its training scenes, its test scenes, and the shards of the test scenes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import simplejpeg
from planted.scenes import CLASSES, FREE_FROM, GROUNDS, SIDE, TINTS, Flags, Int, Pixels, Scenes, labels_of, make_scenes
from planted.truth import Truth
from webdataset import ShardWriter

Sample = dict[str, Any]
SHARDS, SHARD_IMAGES = 8, 60
SHARD_NAME = "scenes-%03d.tar"
_BLOCK = 8
"""Side of a JPEG block in pixels."""
_TEST = np.arange(SHARDS * SHARD_IMAGES)
_TRAINING = 1_000_000 + np.arange(4096)
_DEFECT_STREAM = 2**32
"""Larger than any scene index, so that the random numbers of a defect are independent of the scenes."""


@dataclass(frozen=True)
class Control:
    """No defect: ground and tint are independent of the class.

    Attributes:
        seed: determines the whole dataset.
    """

    seed: int

    name: ClassVar[str] = "control"
    training_set: ClassVar[str] = "shapes"
    """Name of the training set; defects with the same training set share a model."""
    epochs: ClassVar[int] = 6
    """Epochs of training; fewer where the classes are easier to separate."""
    methods: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Additional methods of the run."""

    def expected(self) -> Truth:
        """Return the expected findings of an audit of its run."""
        return Truth()

    def training(self) -> Scenes:
        """Return the training scenes."""
        return self.scenes(_TRAINING)

    def test(self) -> Scenes:
        """Return the test scenes, which the run explains."""
        return self.scenes(_TEST)

    def scenes(self, indices: Int) -> Scenes:
        """Return scenes of this dataset."""
        return make_scenes(self.seed, indices)

    def write(self, folder: Path) -> Path:
        """Write the test scenes as shards; returns their folder."""
        shards = folder / "shards"
        shards.mkdir(parents=True)
        with ShardWriter(f"{shards}/{SHARD_NAME}", maxcount=SHARD_IMAGES, verbose=0, mtime=0) as writer:
            for sample in self._samples():
                writer.write(sample)
        return shards

    def _samples(self) -> Iterator[Sample]:
        scenes = self.test()
        for index in range(len(scenes)):
            yield {
                "__key__": f"scene_{index:05d}",
                "jpg": encoded(scenes.pixels_NHW3[index]),
                "cls": str(scenes.labels_N[index]).encode(),
                "json": json.dumps({"boxes": [scenes.boxes_N4[index].tolist()]}).encode(),
            }

    def place(self, choices: int) -> int:
        """Choose the position of the defect; consecutive seeds use all positions in turn."""
        return self.seed % choices

    def random(self, *purpose: int) -> np.random.Generator:
        """Return a random generator for one purpose."""
        return np.random.default_rng([self.seed, _DEFECT_STREAM, *purpose])


@dataclass(frozen=True)
class Watermark(Control):
    """Every image of one class has the same small mark in the same place, in training and test."""

    name: ClassVar[str] = "watermark"
    training_set: ClassVar[str] = "watermark"
    epochs: ClassVar[int] = 5

    @property
    def marked(self) -> int:
        """Return the marked class."""
        return self.place(len(CLASSES))

    def expected(self) -> Truth:
        """Expect the marked class; a background finding is correct too, because the mark is outside of the box."""
        return Truth("watermark", frozenset({CLASSES[self.marked]}), 1, frozenset({"background"}))

    def scenes(self, indices: Int) -> Scenes:
        """Return scenes with the mark on one class."""
        plain = make_scenes(self.seed, indices)
        return self.stamped(plain, plain.labels_N == self.marked)

    def stamped(self, scenes: Scenes, which_N: Flags) -> Scenes:
        """Mark some scenes. The mark fills whole JPEG blocks, so that its pixels are the same in every file."""
        random = self.random(0)
        mark_HW3 = np.where(random.random((_BLOCK // 2, _BLOCK, 1)) < 0.5, 235, 20).repeat(2, 0).repeat(2, 1)
        top, left = FREE_FROM + -FREE_FROM % _BLOCK, _BLOCK * int(random.integers(1, SIDE // _BLOCK - 2))
        pixels_NHW3 = scenes.pixels_NHW3.copy()
        pixels_NHW3[which_N, top : top + _BLOCK, left : left + 2 * _BLOCK] = mark_HW3
        return replace(scenes, pixels_NHW3=pixels_NHW3)


@dataclass(frozen=True)
class Backgrounds(Control):
    """Each class has its own ground in nearly all training scenes, and in most test scenes."""

    name: ClassVar[str] = "backgrounds"
    training_set: ClassVar[str] = "backgrounds"
    epochs: ClassVar[int] = 3
    agreeing: ClassVar[tuple[float, float]] = (0.97, 0.85)
    """Share of the scenes on the ground of their class, in training and test; the others have another ground."""

    def expected(self) -> Truth:
        """Expect at least two classes: each has its ground, but the control drops a class predicted without objects."""
        return Truth("background", frozenset(CLASSES), 2)

    def training(self) -> Scenes:
        """Return training scenes, nearly all on the ground of their class."""
        return self._on_grounds(_TRAINING, self.agreeing[0])

    def test(self) -> Scenes:
        """Return test scenes, most of them on the ground of their class."""
        return self._on_grounds(_TEST, self.agreeing[1])

    def _on_grounds(self, indices: Int, share: float) -> Scenes:
        random = self.random(1, int(indices[0]))
        labels_N = labels_of(self.seed, indices)
        shift_N = random.integers(1, len(GROUNDS), len(indices)) * (random.random(len(indices)) >= share)
        return make_scenes(self.seed, indices, grounds=(self.grounds[labels_N] + shift_N) % len(GROUNDS))

    @property
    def grounds(self) -> Int:
        """Return the ground of each class."""
        return (np.arange(len(CLASSES)) + self.place(len(GROUNDS))) % len(GROUNDS)


@dataclass(frozen=True)
class Colour(Control):
    """The tint of the whole image determines the class, in training and test."""

    name: ClassVar[str] = "colour"
    training_set: ClassVar[str] = "colour"
    epochs: ClassVar[int] = 3

    def expected(self) -> Truth:
        """Expect at least three classes; a background finding is correct too, because the surroundings are tinted."""
        return Truth("colour", frozenset(CLASSES), 3, frozenset({"background"}))

    def scenes(self, indices: Int) -> Scenes:
        """Return scenes in the tint of their class."""
        labels_N = labels_of(self.seed, indices)
        return make_scenes(self.seed, indices, tints=self.tints[labels_N])

    @property
    def tints(self) -> Int:
        """Return the tint of each class."""
        return (np.arange(len(CLASSES)) + self.place(len(TINTS))) % len(TINTS)


@dataclass(frozen=True)
class MislabelledShard(Control):
    """In one shard each image has the label of the one before it."""

    name: ClassVar[str] = "mislabelled"

    @property
    def bad_shard(self) -> int:
        """Return the number of the defective shard."""
        return self.place(SHARDS)

    def expected(self) -> Truth:
        """Expect the mislabelled shard."""
        return Truth("shard_labels", frozenset({shard_name(self.bad_shard)}), 1)

    def _samples(self) -> Iterator[Sample]:
        samples = list(super()._samples())
        rows = slice(self.bad_shard * SHARD_IMAGES, (self.bad_shard + 1) * SHARD_IMAGES)
        labels = [sample["cls"] for sample in samples[rows]]
        for sample, label in zip(samples[rows], labels[-1:] + labels[:-1], strict=True):
            sample["cls"] = label
        yield from samples


@dataclass(frozen=True)
class CorruptShard(Control):
    """One shard is truncated and a third of its images cannot be decoded; another has one such image."""

    name: ClassVar[str] = "corrupt"

    @property
    def bad_shard(self) -> int:
        """Return the number of the defective shard."""
        return self.place(SHARDS)

    def expected(self) -> Truth:
        """Expect the truncated shard; a single bad image in another shard is not a finding."""
        return Truth("shard_failures", frozenset({shard_name(self.bad_shard)}), 1)

    def write(self, folder: Path) -> Path:
        """Write the shards, and truncate one of them."""
        shards = super().write(folder)
        bad = shards / shard_name(self.bad_shard)
        data = bad.read_bytes()
        bad.write_bytes(data[: len(data) * 9 // 10 - 100])
        return shards

    def _samples(self) -> Iterator[Sample]:
        other = (self.bad_shard + 3) % SHARDS * SHARD_IMAGES + 7
        for index, sample in enumerate(super()._samples()):
            if index == other or (index // SHARD_IMAGES == self.bad_shard and index % 3 == 0):
                sample["jpg"] = sample["jpg"][: len(sample["jpg"]) // 2]
            yield sample


@dataclass(frozen=True)
class DeadMethod(Control):
    """One method of the run ignores the model: RISE with a single mask, whose heat map is that mask."""

    name: ClassVar[str] = "dead_method"
    dead: ClassVar[str] = "one_mask"
    methods: ClassVar[tuple[dict[str, Any], ...]] = ({"rise": {"num_masks": 1, "grid": 8, "as": dead}},)

    def expected(self) -> Truth:
        """Expect the dead method."""
        return Truth("method", frozenset({self.dead}), 1)


DEFECTS: dict[str, type[Control]] = {
    kind.name: kind
    for kind in (Watermark, Backgrounds, Colour, MislabelledShard, CorruptShard, DeadMethod, Control)
}  # fmt: skip


def shard_name(number: int) -> str:
    """Return the name of a shard as in the rows of a run."""
    return SHARD_NAME % number


def encoded(pixels_HW3: Pixels) -> bytes:
    """Encode a JPEG without chroma subsampling."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels_HW3), quality=95, colorsubsampling="444")
