"""Mean ranks by hand, their intervals against a literal bootstrap, and the images that they rest on."""

from pathlib import Path

import numpy as np
import pytest
from ranked import Table, valued_run
from scipy.stats import rankdata

from pipeline.audit.rank.draws import SEED, MeanRank, Ranks, draw_ranks
from pipeline.audit.rank.members import Member, load_members
from pipeline.audit.rank.scope import Scope, pair, scope_of
from pipeline.audit.statistics import Weights, bootstrap

NAN = float("nan")
DROP: Table = {
    "average_drop": {"a": [0.2, 0.4, 0.3], "b": [0.1, 0.2, 0.3], "c": [0.9, 0.9, 0.9]},  # b, a, c
    "insertion": {"a": [0.5, 0.7, 0.6], "b": [0.2, 0.3, 0.1], "c": [0.6, 0.5, 0.7]},  # a and c, b
}
OTHER: Table = {
    "average_drop": {"a": [0.1, 0.1, 0.1], "b": [0.2, 0.3, 0.4], "c": [0.5, 0.5, 0.5]},  # a, b, c
    "insertion": {"a": [0.9, 0.8, 0.9], "b": [0.2, 0.3, 0.1], "c": [0.6, 0.5, 0.7]},  # a, c, b
}


def ranked(folder: Path, *tables: Table, resamples: int = 50) -> tuple[list[Member], Scope, Ranks]:
    paths = [valued_run(folder / str(place), table, model=f"model-{place}") for place, table in enumerate(tables)]
    members = load_members(paths)
    scope = scope_of(members, (), ())
    return members, scope, draw_ranks(members, scope, resamples)


def values(found: list[MeanRank]) -> list[float]:
    return [one.value for one in found]


def test_ranks_and_mean_ranks_by_hand(tmp_path: Path) -> None:
    _, scope, ranks = ranked(tmp_path, DROP, OTHER)
    assert scope.methods == ("a", "b", "c")
    assert [metric.label for metric in scope.metrics] == ["average_drop", "insertion"]
    assert ranks.ranks_AKN.tolist() == [[[2, 1, 3], [1.5, 3, 1.5]], [[1, 2, 3], [1, 3, 2]]]
    assert values(ranks.mean_ranks([0])) == [1.5, 1.5, 3]
    assert values(ranks.mean_ranks([0, 1])) == [1.375, 2.25, 2.375]
    best = ranks.mean_ranks([0, 1])[0]
    assert (best.is_best, best.is_tied, best.by_run) == (True, False, (1.75, 1.0))
    assert best.deviation == pytest.approx(np.std([1.75, 1.0], ddof=1))


def test_a_single_run_has_no_spread(tmp_path: Path) -> None:
    _, _, ranks = ranked(tmp_path, DROP)
    assert {one.deviation for one in ranks.mean_ranks([0, 1])} == {None}


def test_intervals_are_those_of_a_literal_bootstrap(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    table: Table = {"insertion": {name: random.normal(shift, 1, 30).tolist() for name, shift in
                                  (("a", 0.0), ("b", 0.1), ("c", 2.0))}}  # fmt: skip
    _, _, ranks = ranked(tmp_path, table)
    columns_IN = np.array([table["insertion"][name] for name in "abc"], np.float32).T.astype(np.float64)
    strata_I = np.zeros(30, np.int64)

    def literal(weights_RI: Weights) -> np.ndarray:
        means = [[sum(w * v for w, v in zip(row, column, strict=True)) / sum(row) for column in columns_IN.T]
                 for row in weights_RI.astype(float)]  # fmt: skip
        return np.array([rankdata([-mean for mean in row]) for row in means])

    drawn_RN = bootstrap(literal, strata_I, SEED, 50)
    assert np.array_equal(ranks.drawn_RAKN[:, 0, 0], drawn_RN)
    one, other, best = ranks.mean_ranks([0])
    assert (best.value, best.low, best.high) == (1, 1, 1)
    assert (one.low, one.high) == (2, 3)
    assert not one.is_tied
    assert not other.is_tied


def test_methods_that_the_images_cannot_tell_apart_are_tied_with_the_best(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, 40)
    table: Table = {"insertion": {"a": noise.tolist(), "b": random.permutation(noise).tolist(),
                                  "c": (noise - 5).tolist()}}  # fmt: skip
    found = ranked(tmp_path, table)[2].mean_ranks([0])
    assert [one.is_best or one.is_tied for one in found] == [True, True, False]


def test_runs_of_the_same_images_draw_them_equally_often(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    table: Table = {"insertion": {name: random.normal(0, 1, 12).tolist() for name in "abc"}}
    _, _, ranks = ranked(tmp_path, table, table)
    assert np.array_equal(ranks.drawn_RAKN[:, 0], ranks.drawn_RAKN[:, 1])
    assert len(np.unique(ranks.drawn_RAKN[:, 0, 0], axis=0)) > 1


def test_an_image_counts_only_if_every_method_has_its_value(tmp_path: Path) -> None:
    """Without image 1, on which c has no value, a beats b; with it, b would win."""
    table: Table = {"insertion": {"a": [0.5, 0.0], "b": [0.4, 0.9], "c": [0.1, NAN]}}
    members, scope, ranks = ranked(tmp_path, table)
    assert scope.paired[0, 0].images == 1
    assert ranks.ranks_AKN.tolist() == [[[1, 2, 3]]]
    assert pair(members[0].values, "insertion", ["a", "b"]).images == 2


def test_a_resample_without_an_image_of_a_metric_is_left_out(tmp_path: Path) -> None:
    table: Table = {
        "insertion": {"a": [0.5, 0.4, 0.6], "b": [0.4, 0.3, 0.5]},
        "pointing_game": {"a": [1.0, NAN, NAN], "b": [0.0, NAN, NAN]},
    }
    _, _, ranks = ranked(tmp_path, table)
    assert np.isnan(ranks.drawn_RAKN).any()
    assert ranks.mean_ranks([0, 1])[0].high == 1


def test_a_single_image_has_no_interval(tmp_path: Path) -> None:
    _, _, ranks = ranked(tmp_path, {"insertion": {"a": [0.5], "b": [0.4]}})
    one, other = ranks.mean_ranks([0])
    assert (one.value, one.low, one.high) == (1, None, None)
    assert other.is_tied
