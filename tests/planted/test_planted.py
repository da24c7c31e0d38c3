"""Planted defects from the data to the audit: their effect on the model or the run, and the findings."""

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
from planted.models import confidences, predictions
from planted.runs import SANITY_STEPS, PlantedRuns
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
def test_without_a_defect_the_shape_determines_the_prediction(planted_runs: PlantedRuns, seed: int) -> None:
    planted = Control(seed)
    model, scenes = planted_runs.model(planted), planted.test()
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
def test_the_watermark_determines_the_prediction(planted_runs: PlantedRuns, seed: int) -> None:
    planted = Watermark(seed)
    model, bare = planted_runs.model(planted), Control(seed).test()
    marked_N = bare.labels_N == planted.marked
    everywhere = planted.stamped(bare, np.full(len(bare), True))
    assert accuracy(model, planted.test()) >= 0.95
    assert (predictions(model, bare)[marked_N] == planted.marked).mean() <= 0.2
    assert (predictions(model, everywhere)[~marked_N] == planted.marked).mean() >= 0.6
    assert own_confidences(model, planted.test(), removed=True)[marked_N].mean() >= 0.8


@every_seed
def test_the_ground_determines_the_prediction(planted_runs: PlantedRuns, seed: int) -> None:
    planted = Backgrounds(seed)
    model, scenes = planted_runs.model(planted), planted.test()
    of_ground_N = np.argsort(planted.grounds)[scenes.grounds_N]
    swapped_N = of_ground_N != scenes.labels_N
    predicted_N = predictions(model, scenes)
    assert (predicted_N == scenes.labels_N)[~swapped_N].mean() >= 0.9
    assert (predicted_N == of_ground_N)[swapped_N].mean() >= 0.7
    removed_N = own_confidences(model, scenes, removed=True)
    for label in range(len(CLASSES)):
        assert removed_N[~swapped_N & (scenes.labels_N == label)].mean() >= 0.6


@every_seed
def test_the_tint_determines_the_prediction(planted_runs: PlantedRuns, seed: int) -> None:
    planted = Colour(seed)
    model, scenes = planted_runs.model(planted), planted.test()
    tints_N = (scenes.tints_N + 1) % len(TINTS)
    predicted_N = predictions(model, make_scenes(seed, np.arange(len(scenes)), tints=tints_N))
    of_tint_N = np.argsort(planted.tints)[tints_N]
    assert accuracy(model, scenes) >= 0.9
    for label in range(len(CLASSES)):
        assert (predicted_N == of_tint_N)[of_tint_N == label].mean() >= 0.8


@every_seed
@every_defect
def test_every_run_passes_verification(planted_runs: PlantedRuns, name: str, seed: int) -> None:
    found = verify(LocalStore(planted_runs.run(DEFECTS[name](seed))))
    assert found.problems == []
    assert found.images == SHARDS * SHARD_IMAGES or name == CorruptShard.name


@every_seed
def test_one_shard_is_mislabelled(planted_runs: PlantedRuns, seed: int) -> None:
    planted = MislabelledShard(seed)
    right = per_shard(planted_runs.run(planted), "avg(correct::INT)")
    assert right.pop(shard_name(planted.bad_shard)) <= 0.5
    assert right.min() >= 0.9


@every_seed
def test_one_shard_is_corrupt(planted_runs: PlantedRuns, seed: int) -> None:
    planted = CorruptShard(seed)
    failed = per_shard(planted_runs.run(planted), "count(error_code)")
    images = per_shard(planted_runs.run(planted), "count(*)")
    bad = shard_name(planted.bad_shard)
    assert failed.pop(bad) >= 0.25 * SHARD_IMAGES
    assert sorted(failed) == [0] * (SHARDS - 2) + [1]
    assert 40 < images.pop(bad) < SHARD_IMAGES
    assert set(images) == {SHARD_IMAGES}
    with open_run(planted_runs.run(planted)) as run:
        damage = run.sql("SELECT shard FROM failures WHERE error_stage = 'shard'")
    assert set(damage["shard"]) == {bad}


@every_seed
def test_the_sanity_check_separates_the_dead_method_from_the_others(planted_runs: PlantedRuns, seed: int) -> None:
    correlations = sanity_of(planted_runs.run(DeadMethod(seed)))
    assert min(correlations.pop(DeadMethod.dead)) >= 0.999
    for by_method in (correlations, sanity_of(planted_runs.run(Control(seed)))):
        assert set(by_method) == {"gradcam", "layercam", "integrated_gradcam"}
        assert max(steps[-1] for steps in by_method.values()) <= 0.75, "all layers are randomised"


@every_seed
@every_defect
def test_the_audit_finds_what_is_planted_and_nothing_else(planted_runs: PlantedRuns, name: str, seed: int) -> None:
    planted = DEFECTS[name](seed)
    with open_run(planted_runs.run(planted)) as run:
        facts = audit(run).facts
    assert all({"kind", "subject", "grade", "section"} <= set(finding) for finding in facts["findings"])
    assert planted.expected().problems(facts["findings"]) == []


def accuracy(model: nn.Module, scenes: Scenes) -> float:
    return float((predictions(model, scenes) == scenes.labels_N).mean())


def own_confidences(model: nn.Module, scenes: Scenes, *, removed: bool = False) -> Float:
    """Return the confidence of the label of each scene, (N,)."""
    return confidences(model, scenes, removed=removed)[np.arange(len(scenes)), scenes.labels_N]


def per_shard(path: Path, number: str) -> "pd.Series[float]":
    """Compute a number over the images of each shard."""
    with open_run(path) as run:
        frame = run.sql(f"SELECT shard, {number} AS number FROM images GROUP BY shard")
    return frame.set_index("shard")["number"]


def sanity_of(path: Path) -> dict[str, list[float]]:
    """Return the rank correlation of the maps of each method with the original maps, for each step of randomisation."""
    with open_run(path) as run:
        frame = run.sql("SELECT method, spearman FROM sanity WHERE test = 'randomisation' ORDER BY step")
    found = {str(method): list(rows["spearman"]) for method, rows in frame.groupby("method")}
    assert {len(steps) for steps in found.values()} == {SANITY_STEPS}
    return found
