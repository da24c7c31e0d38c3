"""The report finds labels that number the classes in another order than the model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judged import JudgedRun, binary_case

from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.results.query import open_run


def facts_of(maker: JudgedRun) -> dict[str, Any]:
    with open_run(maker.complete().folder) as run:
        found = audit(run, ask_model=False)
    return found.facts | {"page": render(found.facts, found.pictures)}


def line_of(facts: dict[str, Any]) -> dict[str, Any]:
    (line,) = (check for check in facts["checked"] if check["detector"] == "label_order")
    return line


@pytest.mark.parametrize("swapped", [False, True])
def test_swapped_labels_are_a_finding(tmp_path: Path, swapped: bool) -> None:
    cases = [binary_case(number % 2, 3.0 if number % 2 else -3.0) for number in range(40)]
    cases = [replace(case, label=1 - case.label) for case in cases] if swapped else cases
    facts = facts_of(JudgedRun(tmp_path / "run", kind="binary", cases=cases))
    found = [one for one in facts["findings"] if one["kind"] == "label_order"]
    assert len(found) == swapped
    line = line_of(facts)
    assert (line["verdict"], line["images"]) == ("found" if swapped else "not found", 40)
    assert line["effect"]["value"] == (0.0 if swapped else 1.0)
    for one in found:
        assert one["sentence"].startswith("The labels seem to number the classes in another order than the model")
        assert one["advice"].startswith("If so, ")
        assert one["sentence"] in facts["page"]


def test_few_labels_are_undecided_and_none_are_not_checked(tmp_path: Path) -> None:
    few = [binary_case(number % 2, 3.0) for number in range(6)]
    assert line_of(facts_of(JudgedRun(tmp_path / "few", kind="binary", cases=few)))["verdict"] == "undecided"
    none = [replace(case, label=None) for case in few]
    line = line_of(facts_of(JudgedRun(tmp_path / "none", kind="binary", cases=none)))
    assert (line["verdict"], line["why"]) == ("not checked", "no explained image has a label")


def test_independent_labels_and_raw_outputs_are_not_checked(tmp_path: Path) -> None:
    cases = [binary_case(number % 2, 3.0) for number in range(6)]
    line = line_of(facts_of(JudgedRun(tmp_path / "run", kind="sigmoid", cases=cases)))
    assert (line["verdict"], line["why"]) == ("not checked", "its labels are independent")
