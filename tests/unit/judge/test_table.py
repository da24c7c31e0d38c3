"""The documents made from a record: deterministic, complete, and those of the repository are up to date."""

from pathlib import Path

import pytest
from records import judged, record

from pipeline.judge.table import BEGIN, END, metrics_page, short_table, with_short_table, write_documents
from pipeline.metrics import METRICS
from pipeline.results.reliability import shipped_record

DOCS = Path(__file__).resolve().parents[3] / "docs"
UPDATE = "run `python -m pipeline.judge.table`"


def test_the_documents_are_those_of_the_shipped_record() -> None:
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == metrics_page(shipped_record()), UPDATE
    guide = (DOCS / "which-number.md").read_text(encoding="utf-8")
    assert guide.count(BEGIN) == guide.count(END) == 1
    assert guide == with_short_table(guide, shipped_record()), UPDATE


def test_every_number_of_the_record_is_on_the_page() -> None:
    page = metrics_page(record(average_drop=judged(), road=judged(mass=0.02), adcc=judged(rank=None, order=None)))
    assert "Measured on 400 scenes, seed 0, by rule: one 200, and 200." in page
    assert "| `average_drop` | nothing | 0.50 (0.45 to 0.55) | 0.40 (0.35 to 0.45) |" in page
    assert "| `adcc` | none | none | none | none |" in page
    assert "| `average_drop` | 0.30 (-0.10) | 0.10 (0.00 to 0.20) | 0.40 | 120 |" in page
    assert "| `gradcam` | 0.43 (0.40 to 0.46) | none |" in page
    assert "| metric | plain: mass | plain: rank | vit: mass | vit: rank |" in page
    assert "orders methods at chance level (by mass)." in page
    for name in METRICS:
        assert f"`{name}`" in page


def test_every_table_has_as_many_cells_in_each_row() -> None:
    for page in (metrics_page(record(average_drop=judged(size=None, order=None))), metrics_page(shipped_record())):
        for block in page.split("\n\n"):
            assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1


def test_a_record_without_metrics_has_a_page() -> None:
    assert "not judged" in metrics_page(record())
    assert short_table(record()).count("\n") == 1


def test_metrics_that_can_rank_come_first_and_those_that_describe_are_left_out() -> None:
    rows = short_table(
        record(average_drop=judged(mass=0.0), road=judged(), sparsity=judged(better="neither"))
    ).splitlines()
    assert rows[2] == "| `road` | yes | 75 % | 70 % | nothing found |"
    assert rows[3].startswith("| `average_drop` | no | 50 % | 70 % | at chance level")
    assert len(rows) == 4


def test_documents_follow_the_record(tmp_path: Path) -> None:
    guide = tmp_path / "which-number.md"
    guide.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    for mass, verdict in ((0.5, "yes"), (0.0, "no")):
        write_documents(record(road=judged(mass=mass)), tmp_path)
        assert f"| {verdict} |" in (tmp_path / "metrics.md").read_text()
        text = guide.read_text()
        assert text.startswith("above\n")
        assert text.endswith("\nbelow\n")
        assert f"| `road` | {verdict} |" in text
        assert "old" not in text


@pytest.mark.parametrize("value", ["-0.00", "nan"])
def test_no_odd_number_is_printed(value: str) -> None:
    assert value not in metrics_page(record(road=judged(mass=-0.001, size={"rho": -0.0, "low": None, "high": None})))


def test_the_advice_of_the_guide_follows_from_the_record() -> None:
    """Without boxes, occlusion_agreement is the best by the truth that each metric follows worse."""
    worse = {
        name: min(one.low or -1.0 for one in (judged.agreement.methods.mass, judged.agreement.methods.rank) if one)
        for name, judged in shipped_record().metrics.items()
        if judged.needs == "nothing" and judged.agreement.methods and judged.agreement.methods.mass
    }
    highs = {
        name: min(one.high or -1.0 for one in (judged.agreement.methods.mass, judged.agreement.methods.rank) if one)
        for name, judged in shipped_record().metrics.items()
        if name in worse and judged.agreement.methods
    }
    assert max(worse, key=lambda name: worse[name]) == "occlusion_agreement"
    assert worse["occlusion_agreement"] > max(high for name, high in highs.items() if name != "occlusion_agreement")
