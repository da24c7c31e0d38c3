"""Planted datasets: scenes, boxes, and the one defect of each."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from planted.defects import (
    SHARD_IMAGES,
    SHARDS,
    Backgrounds,
    Colour,
    Control,
    CorruptShard,
    MislabelledShard,
    Watermark,
    encoded,
    shard_name,
)
from planted.models import predictions, trained
from planted.scenes import CLASSES, FREE_FROM, GROUNDS, SIDE, labels_of, make_scenes
from planted.truth import Truth

from pipeline.data.decode import decode_image
from pipeline.data.limits import DecodeLimits, UnreadableImageError

FEW = np.arange(300)


def test_a_scene_depends_on_its_seed_and_index_alone() -> None:
    scenes = make_scenes(5, FEW)
    for index in (0, 63, 64, 299):
        alone = make_scenes(5, [index])
        assert np.array_equal(alone.pixels_NHW3[0], scenes.pixels_NHW3[index])
        assert np.array_equal(alone.boxes_N4[0], scenes.boxes_N4[index])
    assert len({pixels_HW3.tobytes() for pixels_HW3 in scenes.pixels_NHW3}) == len(FEW)
    assert not np.array_equal(make_scenes(6, [0]).pixels_NHW3, make_scenes(5, [0]).pixels_NHW3)


def test_attributes_are_independent_of_the_class() -> None:
    scenes = make_scenes(1, np.arange(1600))
    assert np.array_equal(scenes.labels_N, labels_of(1, np.arange(1600)))
    pairs = (scenes.labels_N, scenes.grounds_N), (scenes.labels_N, scenes.tints_N), (scenes.grounds_N, scenes.tints_N)
    for one, other in pairs:
        assert min(Counter(zip(one.tolist(), other.tolist(), strict=True)).values()) > 60
        assert len(set(zip(one.tolist(), other.tolist(), strict=True))) == 16


@pytest.mark.parametrize("other", range(1, len(CLASSES)))
def test_boxes_enclose_the_shape_tightly(other: int) -> None:
    """Scenes that differ only in the shape differ up to the edges of the two boxes, and nowhere outside."""
    labels = labels_of(2, FEW)
    one, two = make_scenes(2, FEW), make_scenes(2, FEW, labels=(labels + other) % len(CLASSES))
    low, high = np.minimum(one.boxes_N4, two.boxes_N4)[:, :2], np.maximum(one.boxes_N4, two.boxes_N4)[:, 2:]
    for differs_HW, (x0, y0), (x1, y1) in zip((one.pixels_NHW3 != two.pixels_NHW3).any(3), low, high, strict=True):
        rows, columns = differs_HW.any(1).nonzero()[0], differs_HW.any(0).nonzero()[0]
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        inside = found - [x0, y0, x1, y1]
        assert (inside[:2] >= 0).all()
        assert (inside[2:] <= 0).all()
        assert np.abs(inside).max() <= 1


def test_boxes_are_above_the_rows_of_planted_marks() -> None:
    boxes = make_scenes(3, FEW).boxes_N4
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= SIDE
    assert boxes[:, 3].max() <= FREE_FROM


@pytest.mark.parametrize("kind", [Watermark, Backgrounds, CorruptShard])
def test_a_dataset_is_the_same_each_time(kind: type[Control], tmp_path: Path) -> None:
    once, again = (kind(4).write(tmp_path / name) for name in ("once", "again"))
    names = sorted(path.name for path in once.iterdir())
    assert names == [shard_name(number) for number in range(SHARDS)]
    assert all((once / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert (once / names[0]).read_bytes() != (kind(5).write(tmp_path / "other") / names[0]).read_bytes()


def test_the_mark_has_the_same_pixels_in_every_file_of_its_class() -> None:
    planted = Watermark(7)
    plain, marked = Control(7).scenes(FEW), planted.scenes(FEW)
    changed_N = (plain.pixels_NHW3 != marked.pixels_NHW3).any((1, 2, 3))
    assert np.array_equal(changed_N, marked.labels_N == planted.marked)
    place_HW = (plain.pixels_NHW3 != marked.pixels_NHW3).any((0, 3))
    assert place_HW.any(1).argmax() >= FREE_FROM
    assert 100 <= place_HW.sum() <= 128
    files = [encoded(pixels_HW3) for pixels_HW3 in marked.pixels_NHW3[changed_N][:20]]
    seen = {np.asarray(decode_image(file, DecodeLimits()).image)[place_HW].tobytes() for file in files}
    assert len(seen) == 1


def test_grounds_and_tints_agree_with_the_class_at_the_stated_rate() -> None:
    planted = Backgrounds(3)
    for scenes, share in ((planted.training(), 0.97), (planted.test(), 0.85)):
        found = scenes.grounds_N == planted.grounds[scenes.labels_N]
        assert found.mean() == pytest.approx(share, abs=0.04)
    assert sorted(planted.grounds) == list(range(len(GROUNDS)))
    tinted = Colour(3).test()
    assert np.array_equal(tinted.tints_N, Colour(3).tints[tinted.labels_N])
    assert np.array_equal(tinted.labels_N, Control(3).test().labels_N)


def test_one_shard_has_the_labels_of_the_previous_images(tmp_path: Path) -> None:
    planted = MislabelledShard(2)
    right, wrong = members(Control(2).write(tmp_path / "right")), members(planted.write(tmp_path / "wrong"))
    for name in right:
        same = [one == other for one, other in zip(right[name], wrong[name], strict=True)]
        labels = [int(sample["cls"]) for sample in right[name]]
        if name == shard_name(planted.bad_shard):
            assert [int(sample["cls"]) for sample in wrong[name]] == labels[-1:] + labels[:-1]
            assert sum(same) < 0.5 * SHARD_IMAGES
        else:
            assert all(same)


def test_one_shard_is_truncated_with_bad_images_and_another_has_one_bad_image(tmp_path: Path) -> None:
    planted = CorruptShard(2)
    found = members(planted.write(tmp_path))
    bad = {name: sum(map(undecodable, samples)) for name, samples in found.items()}
    assert sorted(bad.values()) == [0] * (SHARDS - 2) + [1, bad[shard_name(planted.bad_shard)]]
    assert bad[shard_name(planted.bad_shard)] > 15
    assert 40 < len(found[shard_name(planted.bad_shard)]) < SHARD_IMAGES


def test_training_gives_the_same_weights_for_the_same_seed() -> None:
    scenes = make_scenes(1, FEW)
    state = torch.get_rng_state()
    one, two, other = (trained(scenes, seed, epochs=1) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.state_dict() for model in (one, two, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["head.2.weight"], weights[2]["head.2.weight"])
    assert predictions(one, scenes).shape == (len(FEW),)


def test_findings_must_match_the_planted_defect() -> None:
    truth = Truth("background", frozenset({"disc", "ring"}), 1, frozenset({"colour"}))
    correct, allowed, wrong, other = (
        {"kind": kind, "subject": subject, "grade": "intervened", "section": "x"}
        for kind, subject in (("background", "ring"), ("colour", "disc"), ("colour", "cross"), ("method", "ring"))
    )
    assert truth.problems([correct]) == truth.problems([correct, allowed]) == []
    assert truth.problems([correct | {"subject": "3", "name": "ring"}]) == []
    assert len(truth.problems([])) == len(truth.problems([allowed])) == 1
    assert len(truth.problems([correct, wrong, other])) == 2
    assert Truth().problems([]) == []
    assert len(Truth().problems([correct])) == 1


def members(shards: Path) -> dict[str, list[dict[str, bytes]]]:
    """Read the complete samples of every shard with the standard library."""
    found: dict[str, list[dict[str, bytes]]] = {}
    for path in sorted(shards.iterdir()):
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
            for member in complete_members(tar):
                key, _, suffix = member.name.partition(".")
                samples.setdefault(key, {})[suffix] = tar.extractfile(member).read()  # type: ignore[union-attr]
        found[path.name] = [sample for sample in samples.values() if len(sample) == 3]
        assert all(len(json.loads(sample["json"])["boxes"]) == 1 for sample in found[path.name])
    return found


def complete_members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    try:
        return tar.getmembers()
    except tarfile.ReadError:
        return list(tar.members)[:-1]


def undecodable(sample: dict[str, bytes]) -> bool:
    try:
        decode_image(sample["jpg"], DecodeLimits())
    except UnreadableImageError:
        return True
    return False
