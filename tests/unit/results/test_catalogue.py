"""What the list and the pages of metrics say of their reliability."""

from records import judged, record

from pipeline.metrics import METRICS
from pipeline.metrics.road import Road
from pipeline.results.catalogue import metric_page, metric_rows
from pipeline.settings.registry import parameters


def verdicts(**metrics: object) -> dict[str, str]:
    return {row["metric"]: row["ranks methods"] for row in metric_rows(record(**metrics))}  # type: ignore[arg-type]


def test_the_list_says_of_each_metric_whether_it_can_rank_methods() -> None:
    found = verdicts(average_drop=judged(), road=judged(mass=0.0, params=parameters(Road())), sparsity=judged())
    assert list(found) == list(METRICS)
    assert found["average_drop"] == "yes: 75 %, 70 %"
    assert found["road"] == "no: 50 %, 70 %"
    assert found["sparsity"] == "describes only"
    assert found["insertion"] == "not judged"


def test_metrics_whose_defaults_were_not_judged_say_so() -> None:
    assert verdicts(road=judged(params={"sigma": 1.0}))["road"] == "judged with other parameters"


def test_a_page_has_one_line_on_reliability() -> None:
    page = metric_page(METRICS["average_drop"], record(average_drop=judged(order=0.5)))
    (line,) = [line for line in page.splitlines() if line.startswith("  reliability: ")]
    assert line.startswith(
        "  reliability: orders 75 % (mass) and 70 % (rank) of the pairs of methods as the truth does; "
    )
    assert "cannot see the place" in line
    assert line.endswith("(see docs/metrics.md)")
