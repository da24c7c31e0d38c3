"""Planted defects, from the data to the audit: each decides what the model does or what the run holds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted.defects import (
    DEFECTS,
    SHARD_IMAGES,
    SHARDS,
    Backgrounds,
    Colour,
    Control,
    CorruptShard,
    DeadMethod,
    MislabelledShard,
    Watermark,
    shard_name,
)
from planted.models import answers, confidences
from planted.runs import SANITY_STEPS, Workshop
from planted.scenes import CLASSES, GROUNDS, TINTS, Float, Scenes, make_scenes
from torch import nn

from pipeline.audit.facts import audit
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore

SEEDS = [
    pytest.param(0, marks=pytest.mark.slow),
    *(pytest.param(seed, marks=pytest.mark.campaign) for seed in range(1, 11)),
]
every_seed = pytest.mark.parametrize("seed", SEEDS)
every_defect = pytest.mark.parametrize("name", DEFECTS)


@every_seed
def test_without_a_defect_the_shape_decides(workshop: Workshop, seed: int) -> None:
    planted = Control(seed)
    model, scenes = workshop.model(planted), planted.test()
    shown = own_confidences(model, scenes)
    removed = own_confidences(model, scenes, removed=True)
    assert accuracy(model, scenes) >= 0.95
    assert shown.mean() >= 0.8
    for label in range(len(CLASSES)):
        assert removed[scenes.labels_N == label].mean() <= 0.5, "chance is 0.25"
    indices = np.arange(len(scenes))
    elsewhere = make_scenes(seed, indices, grounds=(scenes.grounds_N + 1) % len(GROUNDS))
    recoloured = make_scenes(seed, indices, tints=(scenes.tints_N + 1) % len(TINTS))
    assert accuracy(model, elsewhere) >= 0.9
    assert accuracy(model, recoloured) >= 0.9


@every_seed
def test_the_watermark_decides(workshop: Workshop, seed: int) -> None:
    planted = Watermark(seed)
    model, bare = workshop.model(planted), Control(seed).test()
    marked_N = bare.labels_N == planted.marked
    everywhere = planted.stamped(bare, np.full(len(bare), True))
    assert accuracy(model, planted.test()) >= 0.95
    assert (answers(model, bare)[marked_N] == planted.marked).mean() <= 0.2
    assert (answers(model, everywhere)[~marked_N] == planted.marked).mean() >= 0.6
    assert own_confidences(model, planted.test(), removed=True)[marked_N].mean() >= 0.8


@every_seed
def test_the_ground_decides(workshop: Workshop, seed: int) -> None:
    planted = Backgrounds(seed)
    model, scenes = workshop.model(planted), planted.test()
    of_ground_N = np.argsort(planted.grounds)[scenes.grounds_N]
    swapped_N = of_ground_N != scenes.labels_N
    said_N = answers(model, scenes)
    assert (said_N == scenes.labels_N)[~swapped_N].mean() >= 0.9
    assert (said_N == of_ground_N)[swapped_N].mean() >= 0.7
    removed_N = own_confidences(model, scenes, removed=True)
    for label in range(len(CLASSES)):
        assert removed_N[~swapped_N & (scenes.labels_N == label)].mean() >= 0.6


@every_seed
def test_the_tint_decides(workshop: Workshop, seed: int) -> None:
    planted = Colour(seed)
    model, scenes = workshop.model(planted), planted.test()
    tints_N = (scenes.tints_N + 1) % len(TINTS)
    said_N = answers(model, make_scenes(seed, np.arange(len(scenes)), tints=tints_N))
    of_tint_N = np.argsort(planted.tints)[tints_N]
    assert accuracy(model, scenes) >= 0.9
    for label in range(len(CLASSES)):
        assert (said_N == of_tint_N)[of_tint_N == label].mean() >= 0.8


@every_seed
@every_defect
def test_every_run_is_sound(workshop: Workshop, name: str, seed: int) -> None:
    found = verify(LocalStore(workshop.run(DEFECTS[name](seed))))
    assert found.problems == []
    assert found.images == SHARDS * SHARD_IMAGES or name == CorruptShard.name


@every_seed
def test_one_shard_is_mislabelled(workshop: Workshop, seed: int) -> None:
    planted = MislabelledShard(seed)
    right = per_shard(workshop.run(planted), "avg(correct::INT)")
    assert right.pop(shard_name(planted.bad_shard)) <= 0.5
    assert right.min() >= 0.9


@every_seed
def test_one_shard_is_corrupt(workshop: Workshop, seed: int) -> None:
    planted = CorruptShard(seed)
    failed = per_shard(workshop.run(planted), "count(error_code)")
    images = per_shard(workshop.run(planted), "count(*)")
    bad = shard_name(planted.bad_shard)
    assert failed.pop(bad) >= 0.25 * SHARD_IMAGES
    assert sorted(failed) == [0] * (SHARDS - 2) + [1]
    assert 40 < images.pop(bad) < SHARD_IMAGES
    assert set(images) == {SHARD_IMAGES}
    with open_run(workshop.run(planted)) as run:
        damage = run.sql("SELECT shard FROM failures WHERE error_stage = 'shard'")
    assert set(damage["shard"]) == {bad}


@every_seed
def test_the_sanity_check_tells_the_dead_method_from_the_others(workshop: Workshop, seed: int) -> None:
    likeness = sanity_of(workshop.run(DeadMethod(seed)))
    assert min(likeness.pop(DeadMethod.dead)) >= 0.999
    for likenesses in (likeness, sanity_of(workshop.run(Control(seed)))):
        assert set(likenesses) == {"gradcam", "layercam", "integrated_gradcam"}
        assert max(found[-1] for found in likenesses.values()) <= 0.75, "nothing learnt is left"


@every_seed
@every_defect
def test_the_audit_finds_what_is_planted_and_nothing_else(workshop: Workshop, name: str, seed: int) -> None:
    planted = DEFECTS[name](seed)
    with open_run(workshop.run(planted)) as run:
        facts = audit(run).facts
    assert all({"kind", "subject", "grade", "section"} <= set(finding) for finding in facts["findings"])
    assert planted.expected().mistakes(facts["findings"]) == []


def accuracy(model: nn.Module, scenes: Scenes) -> float:
    return float((answers(model, scenes) == scenes.labels_N).mean())


def own_confidences(model: nn.Module, scenes: Scenes, *, removed: bool = False) -> Float:
    """Confidence in the label of each scene, (N,)."""
    return confidences(model, scenes, removed=removed)[np.arange(len(scenes)), scenes.labels_N]


def per_shard(path: Path, number: str) -> "pd.Series[float]":
    """A number of the images of each shard."""
    with open_run(path) as run:
        frame = run.sql(f"SELECT shard, {number} AS number FROM images GROUP BY shard")
    return frame.set_index("shard")["number"]


def sanity_of(path: Path) -> dict[str, list[float]]:
    """Rank correlations of the maps of each method with those of a model that forgets step by step."""
    with open_run(path) as run:
        frame = run.sql("SELECT method, spearman FROM sanity WHERE test = 'randomisation' ORDER BY step")
    found = {str(method): list(rows["spearman"]) for method, rows in frame.groupby("method")}
    assert {len(steps) for steps in found.values()} == {SANITY_STEPS}
    return found
