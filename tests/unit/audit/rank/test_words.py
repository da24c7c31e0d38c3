"""What a ranking says: the best, methods no better than a control, and metrics that disagree, largest first."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.audit.rank.draws import Ranks
from pipeline.audit.rank.scope import RankedMetric, Scope
from pipeline.audit.rank.words import MOST, conclusions

METHODS = ("a", "b", "c", "d")


def said(
    by_metric: Mapping[str, Sequence[float]],
    drawn: Mapping[str, Sequence[Sequence[float]]] | None = None,
    control: str = "",
    groups: Mapping[str, Sequence[int]] | None = None,
) -> list[str]:
    """Return the sentences on one run; every resample has the same ranks, unless `drawn` says otherwise."""
    methods = METHODS[: len(next(iter(by_metric.values())))]
    metrics = tuple(RankedMetric(name, name, {}, "higher") for name in by_metric)
    families = {
        metric.family: [k for k, one in enumerate(metrics) if one.family == metric.family] for metric in metrics
    }
    ranks_AKN = np.array([list(by_metric.values())])
    resamples = [{name: (drawn or {}).get(name, [ranks] * 2)[r] for name, ranks in by_metric.items()} for r in range(2)]
    drawn_RAKN = np.array([[list(one.values())] for one in resamples])
    scope = Scope(methods, frozenset(filter(None, [control])), metrics, {}, ())
    whole = {"all metrics": list(range(len(metrics)))} if groups is None else groups
    return conclusions(scope, Ranks(ranks_AKN, drawn_RAKN), {**whole, **families})


def test_the_best_method_is_named_with_its_interval_and_its_ties() -> None:
    found = said(
        {"insertion": [1, 2, 3], "road": [1, 2, 3]},
        {"road": [[1, 2, 3], [2, 1, 3]], "insertion": [[1, 2, 3], [2, 1, 3]]},
    )
    assert found == [
        "by all 2 metrics, a has the best mean rank, 1.0 (95 % interval 1.0 to 2.0); these images cannot tell b from it"
    ]


def test_several_best_methods_are_all_named() -> None:
    assert said({"insertion": [1.5, 1.5, 3]})[0] == (
        "by the only metric, a and b have the best mean rank, 1.5 (95 % interval 1.5 to 1.5)"
    )


def test_equal_methods_are_not_listed_as_winners() -> None:
    assert said({"insertion": [2, 2, 2]}) == ["by the only metric, all methods have the same mean rank"]


def test_reliable_metrics_have_a_sentence_of_their_own() -> None:
    groups = {"all metrics": [0, 1], "reliable metrics": [0]}
    assert said({"insertion": [1, 2, 3], "road": [1, 3, 2]}, groups=groups)[1] == (
        "by the 1 reliable metric, a has the best mean rank, 1.0 (95 % interval 1.0 to 1.0)"
    )


def test_a_method_that_does_not_beat_the_control_is_named() -> None:
    found = said({"insertion": [1, 4, 3, 2], "road": [1, 2, 4, 3], "pointing_game": [4, 3, 2, 1]}, control="d")
    assert [sentence for sentence in found if "control" in sentence] == [
        "a, b and c are not reliably better than the control d in mean rank",
        "by pointing_game, no method is reliably better than the control d: it shows nothing in favour of any",
        "by insertion, 2 of 3 methods are not reliably better than the control d: b and c",
        "by road, 1 of 3 methods is not reliably better than the control d: c",
    ]


def test_a_lead_over_the_control_that_may_be_chance_is_none() -> None:
    drawn = {"insertion": [[1.0, 2, 3, 4], [1, 4, 3, 2]]}
    assert said({"insertion": [1, 2, 3, 4]}, drawn, control="d")[1:] == [
        "b and c are not reliably better than the control d in mean rank",
        "by insertion, 2 of 3 methods are not reliably better than the control d: b and c",
    ]


def test_metrics_that_disagree_are_named_with_the_method_between_them() -> None:
    found = said({"insertion": [1, 2, 3, 4], "deletion": [3, 2, 4, 1]})
    assert found[1:] == [
        "insertion and deletion disagree: tau -0.33 (95 % interval -0.33 to -0.33); d is 4th by insertion and 1st by "
        "deletion"
    ]


def test_a_disagreement_that_may_be_chance_says_so_and_shared_places_are_named() -> None:
    found = said(
        {"insertion": [1, 2.5, 2.5, 4], "deletion": [4, 2, 3, 1]}, {"deletion": [[4.0, 2, 3, 1], [1, 2, 3, 4]]}
    )
    assert ", which may be chance); a is 1st by insertion and 4th by deletion" in found[1]
    found = said({"insertion": [3.5, 1.5, 1.5, 3.5], "deletion": [2, 3, 4, 1]})
    assert found[1].endswith("; c is shared 1st by insertion and 4th by deletion")


def test_metrics_that_agree_are_not_named() -> None:
    assert len(said({"insertion": [1, 2, 3, 4], "deletion": [1, 2, 4, 3]})) == 1


def test_metrics_of_other_families_are_compared_as_families() -> None:
    found = said({"insertion": [1, 2, 3, 4], "pointing_game": [4, 3, 2, 1]})
    assert found[1].startswith("the faithfulness metrics and the localisation metrics disagree: tau -1.00 ")


def test_a_control_does_not_make_metrics_agree() -> None:
    """Without the control, which both put last, the two metrics are opposed."""
    found = said({"insertion": [1, 2, 3, 4], "deletion": [3, 2, 1, 4]}, control="d")
    assert any(sentence.startswith("insertion and deletion disagree: tau -1.00") for sentence in found)


def test_two_methods_are_too_few_for_a_disagreement() -> None:
    assert len(said({"insertion": [1, 2], "deletion": [2, 1]})) == 1


def test_only_the_largest_disagreements_are_named() -> None:
    names = ("average_drop", "increase", "insertion", "deletion", "road", "infidelity", "average_gain")
    ranks: dict[str, Sequence[float]] = {name: [1, 2, 3, 4] if n < 3 else [4, 3, 2, 1] for n, name in enumerate(names)}
    ranks["road"] = [4, 3, 1, 2]
    found = said(ranks)[1:]
    assert len(found) == MOST + 1
    assert all("tau -1.00" in sentence for sentence in found[:MOST])
    assert found[MOST] == "7 more pairs disagree less"
