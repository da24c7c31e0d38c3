"""What follows from a record: verdicts, marks and sentences; records that cannot be read are refused."""

from pathlib import Path
from typing import Any

import pytest
from records import judged, record, record_fields, written

from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.results.reliability import (
    Reliability,
    leaderboard_note,
    load_record,
    reliability,
    shipped_record,
)
from pipeline.settings.registry import parameters


def known(**numbers: Any) -> Reliability:
    return reliability(record(average_drop=judged(**numbers)), "average_drop", "lower")


def test_a_metric_that_agrees_with_both_truths_carries() -> None:
    assert known().carries()
    assert known().marks() == []
    assert known().line() == (
        "orders 75 % (mass) and 70 % (rank) of the pairs of methods as the truth does; can carry a conclusion about "
        "methods"
    )


@pytest.mark.parametrize(
    ("numbers", "mark"),
    [
        ({"mass": 0.04}, "orders methods at chance level (by mass)"),
        ({"mass": 0.0, "rank": 0.0}, "orders methods at chance level (by mass and rank)"),
        ({"rank": 0.12}, "orders methods little above chance (by rank)"),
        ({"rank": None}, "orders methods at chance level (by rank)"),
        ({"mass": -0.3}, "orders methods against the truth (by mass)"),
        ({"order": {"shifted": 0.5, "other_part": 0.12, "inverted": 1.0, "noise": 1.0}},
         "cannot see the place (the truth beats shifted in 50 %, other part in 12 % of scenes)"),
        ({"order": {"shifted": 1.0, "other_part": 1.0, "inverted": 1.0, "noise": 0.6}},
         "fooled by wrong maps (the truth beats noise in 60 % of scenes)"),
        ({"order": None}, "not tried on wrong maps: it needs a method"),
    ],
)  # fmt: skip
def test_a_fault_is_named_and_the_metric_carries_nothing(numbers: dict[str, Any], mark: str) -> None:
    assert known(**numbers).marks() == [mark]
    assert not known(**numbers).carries()
    assert "; cannot carry a conclusion about methods; " in known(**numbers).line()


@pytest.mark.parametrize(
    ("numbers", "mark"),
    [
        ({"free_gains": {"blur": {"rewarded": 0.62, "gain": 0.03}}}, "prefers blurred maps (62 % of scenes)"),
        ({"free_gains": {"dilation": {"rewarded": 1.0, "gain": None}}}, "prefers dilated maps (100 % of scenes)"),
        ({"size": {"rho": -0.85, "low": -0.9, "high": -0.8}},
         "follows the size of the map (correlation -0.85)"),
        ({"repeatability": {"alpha": 0.1, "scenes_needed": 9000}}, "needs 9000 scenes for a stable ranking"),
        ({"repeatability": {"alpha": 0.0, "scenes_needed": None}}, "no number of scenes gives a stable ranking"),
    ],
)  # fmt: skip
def test_a_preference_is_marked_but_does_not_forbid_a_conclusion(numbers: dict[str, Any], mark: str) -> None:
    assert known(**numbers).marks() == [mark]
    assert known(**numbers).carries()


@pytest.mark.parametrize(
    "missing",
    [
        {"free_gains": {"blur": None}},
        {"size": None},
        {"size": {"rho": None, "low": 0.9, "high": 0.9}},
        {"repeatability": None},
        {"free_gains": {}},
    ],
)
def test_what_was_not_measured_gets_no_mark(missing: dict[str, Any]) -> None:
    assert known(**missing).marks() == []


def test_a_metric_that_is_not_in_the_record_is_not_judged() -> None:
    assert reliability(record(), "road", "higher").line() == "not judged"


def test_a_metric_without_a_direction_ranks_nothing_whatever_was_measured() -> None:
    found = reliability(record(sparsity=judged()), "sparsity", "neither")
    assert not found.carries()
    assert found.line() == "describes the map or the model: no value is better than another"


def test_other_parameters_are_other_metrics() -> None:
    used = parameters(METRICS["average_drop"]())
    both = record(average_drop=judged())
    assert reliability(both, "average_drop", "lower", used).carries()
    changed = reliability(both, "average_drop", "lower", used | {"mask": "top", "share": 0.3})
    assert not changed.carries()
    assert changed.pairs() == {"mass": None, "rank": None}
    assert changed.line() == "judged with other parameters: mask soft, here top, share 0.15, here 0.3"


def test_parameters_that_json_writes_in_another_way_are_the_same() -> None:
    both = record(road=judged(params={"percentiles": [20, 40.0], "sigma": 0.01}))
    assert reliability(both, "road", "higher", {"name": "road", "percentiles": (20.0, 40.0), "sigma": 0.01}).carries()


def test_the_record_of_the_package_can_be_read_and_names_known_metrics() -> None:
    shipped = shipped_record()
    assert set(shipped.metrics) <= set(METRICS)
    assert all(shipped.metrics[name].better == METRICS[name].better for name in shipped.metrics)


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "judged.json"
    fields = record_fields(average_drop=judged())

    def refusal() -> str:
        with pytest.raises(ConfigError) as error:
            load_record(file, "--judged")
        return str(error.value)

    assert "--judged: cannot read" in refusal()
    file.write_text("{")
    assert "is not JSON" in refusal()
    file.write_text("[" * 100_000)
    assert "is not JSON" in refusal()
    file.write_bytes(b"\xff\xfe\x00")
    assert "is not JSON" in refusal()
    for other in ([1], {"facts_version": 3}):
        written(file, other)  # type: ignore[arg-type]
        assert "is not a record of `camatlas judge`" in refusal()
    written(file, fields | {"version": 2})
    assert "has version 2, and this camatlas reads version 1" in refusal()
    for damage in (
        {"mass": 33.0}, {"mass": float("nan")}, {"needs": "luck"}, {"order": {"noise": "often"}}, {"params": None},
    ):  # fmt: skip
        written(file, record_fields(average_drop=judged(**damage)))
        assert "is damaged: fields are missing or wrong: metrics.average_drop." in refusal()
    del fields["methods"], fields["metrics"]["average_drop"]["size"]
    written(file, fields)
    assert "metrics.average_drop.size, methods" in refusal()
    assert "`camatlas judge`" in refusal()


def test_fields_that_a_later_record_adds_are_ignored(tmp_path: Path) -> None:
    file = written(tmp_path / "judged.json", record_fields(average_drop=judged(more=1)) | {"more": 1})
    assert load_record(file, "--judged") == record(average_drop=judged())


def test_the_note_beside_a_leaderboard_names_weak_metrics_and_says_nothing_of_good_ones() -> None:
    known = record(average_drop=judged(), deletion=judged(mass=0.0), sparsity=judged(better="neither"))
    params = judged()["params"]
    good = {"average_drop": {"name": "average_drop", **params}, "sparsity": {"name": "sparsity"}}
    assert leaderboard_note(good, known) == ""
    weak = {"my_deletion": {"name": "deletion", **params}, "rise": {"name": "insertion"}}
    note = leaderboard_note(good | weak, known)
    assert note.startswith("Not known to carry a conclusion about methods: my_deletion (at chance level), rise (not ")
    assert "average_drop" not in note
