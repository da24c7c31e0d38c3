"""What `camatlas audit` says on stderr about what it found."""

from typing import Any

from jobs.audit import summary


def facts(*sentences: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    verdicts = ("found", "undecided", "not checked", "not checked", "not found")
    return {
        "findings": [{"sentence": sentence} for sentence in sentences], "more_findings": list(more),
        "checked": [{"verdict": verdict} for verdict in verdicts],
    }  # fmt: skip


def test_every_finding_is_a_line_and_what_is_open_is_counted() -> None:
    counts = "of 5 checks, 1 undecided and 2 not checked; the report says why"
    assert summary(facts("One.", "Two.", more=("Three.",))) == [
        "finding: One.", "finding: Two.", "finding: Three.", counts,
    ]  # fmt: skip
    assert summary(facts()) == ["no findings", counts]
