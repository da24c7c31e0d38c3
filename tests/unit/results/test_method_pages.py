"""The list of methods says what each needs and costs, and each has a page."""

import pytest

from pipeline.cams import METHODS
from pipeline.results.catalogue import method_page, method_rows

ROWS = {row["method"].split(" ")[0]: row for row in method_rows()}


def test_the_list_has_every_method() -> None:
    assert list(ROWS) == list(METHODS)


@pytest.mark.parametrize(
    ("name", "needs", "cost"),
    [
        ("raw_attention", "attention", ("0", "0", "0")),
        ("attention_rollout", "attention", ("0", "0", "0")),
        ("attention_gradient", "attention, gradients", ("0", "0", "0")),
        ("legrad", "attention, gradients", ("0", "11", "1")),
        ("gradcam", "gradients", ("0", "0", "0")),
        ("eigen_cam", "activations", ("0", "0", "0")),
        ("rise", "images", ("4000", "0", "0")),
    ],
)
def test_the_list_says_what_a_method_needs_and_costs(name: str, needs: str, cost: tuple[str, str, str]) -> None:
    row = ROWS[name]
    assert (row["needs"], row["forwards"], row["head passes"], row["backwards"]) == (needs, *cost)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_with_its_reference(name: str) -> None:
    page = method_page(METHODS[name])
    assert page.startswith(f"{name}\n{'=' * len(name)}\n\n")
    assert f"Reference: {METHODS[name].paper.authors}. " in page
