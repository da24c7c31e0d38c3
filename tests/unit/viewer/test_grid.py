"""The page of tiles: every filter alone and together, against plain loops over the rows; and what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from viewing import addresses, keys, text

from pipeline.results.query import open_run

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    """All rows of the run, without maps."""
    with open_run(folder) as run:
        found = [row for _, table in run.tables() for row in table.drop_columns(["map"]).to_pylist()]
    return [row for row in found if row["error_stage"] != "shard"]


def expected(rows: list[Row], keep: Callable[[Row], bool], method: str = "gradcam") -> list[str]:
    return [f"{row['shard']}/{row['image_key']}" for row in rows if row["method"] in (method, None) and keep(row)]


@pytest.mark.parametrize(
    ("query", "keep"),
    [
        ("", lambda row: True),
        ("label=dog", lambda row: row["label"] == 1),
        ("label=DOG", lambda row: row["label"] == 1),
        ("label=1", lambda row: row["label"] == 1),
        ("label=1+dog", lambda row: row["label"] == 1),
        ("predicted=cat", lambda row: row["predicted"] == 0),
        ("right=wrong", lambda row: row["label"] is not None and row["label"] != row["predicted"]),
        ("right=right", lambda row: row["label"] is not None and row["label"] == row["predicted"]),
        ("min.average_drop=0.3", lambda row: row["average_drop"] is not None and row["average_drop"] >= 0.3),
        ("max.average_drop=0.3", lambda row: row["average_drop"] is not None and row["average_drop"] <= 0.3),
        ("min.average_drop=0.25&max.average_drop=0.25", lambda row: row["average_drop"] == 0.25),
        ("shard=b.tar", lambda row: row["shard"] == "b.tar"),
        ("key=-0-1", lambda row: "-0-1" in row["image_key"]),
        ("failure=any", lambda row: row["error_code"] is not None),
        ("failure=decode/truncated", lambda row: row["error_code"] == "truncated"),
        ("where=average_drop+%3C+0.3+OR+error_code+IS+NOT+NULL",
         lambda row: row["error_code"] is not None or row["average_drop"] < 0.3),
        ("where=label_name+%3D+'dog'", lambda row: row["label"] == 1),
        ("where=image_key+IN+(SELECT+image_key+FROM+explanations+WHERE+method%3D'scorecam'+AND+average_drop>0.6)",
         lambda row: row["image_key"] in ("0-0-1",)),
        ("where=lower(label_name)+LIKE+'d%25'+AND+abs(confidence-0.75)<1e-6+AND+round(target_logit)+BETWEEN+-3+AND+-2",
         lambda row: row["label"] == 1),
        ("where=NOT+correct", lambda row: row["label"] is not None and row["label"] != row["predicted"]),
        ("shard=a.tar&predicted=dog&min.confidence=0.5", lambda row: row["shard"] == "a.tar" and row["predicted"] == 1),
        ("label=&right=&min.confidence=&where=&failure=", lambda row: True),
    ],
)  # fmt: skip
def test_each_filter_leaves_the_rows_that_a_loop_leaves(
    page: TestClient, rows: list[Row], query: str, keep: Callable[[Row], bool]
) -> None:
    answer = page.get(f"/?{query}")
    assert answer.status_code == 200
    assert keys(answer.text) == expected(rows, keep)
    found = len(expected(rows, keep))
    assert f"{found} of 5 images" in text(answer.text)


def test_the_method_chooses_whose_numbers_are_filtered(page: TestClient, rows: list[Row]) -> None:
    answer = page.get("/?method=scorecam&min.average_drop=0.5")
    kept = expected(rows, lambda row: (row["average_drop"] or 0) >= 0.5, "scorecam")
    assert keys(answer.text) == kept
    assert len(kept) == 3
    assert all("method=scorecam" in source for source in addresses(answer.text) if source.startswith("/tile"))


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_sorting_puts_rows_without_a_value_last(page: TestClient, rows: list[Row], order: str) -> None:
    answer = page.get(f"/?sort=average_drop&order={order}")
    chosen = [row for row in rows if row["method"] in ("gradcam", None)]
    sign = -1 if order == "desc" else 1
    chosen.sort(key=lambda row: (row["average_drop"] is None, sign * (row["average_drop"] or 0)))
    assert keys(answer.text) == [f"{row['shard']}/{row['image_key']}" for row in chosen]


def test_failures_and_damage_are_said(page: TestClient) -> None:
    words = text(page.get("/").text)
    assert "failed: decode/truncated" in words
    assert "1 failed" in words
    assert "b.tar: tar: no header here" in words


def test_links_lead_to_the_same_view_and_remove_one_filter(page: TestClient) -> None:
    answer = page.get("/?label=dog&shard=a.tar&min.average_drop=0.1")
    chips = [link for link in addresses(answer.text, "href") if link.startswith("/?") and "sort" not in link]
    without_label = next(link for link in chips if "label" not in link and "shard" in link)
    assert "min.average_drop=0.1" in without_label
    assert keys(page.get(without_label).text) == ["a.tar/0-0-0", "a.tar/0-0-1", "a.tar/0-1-0"]


def test_every_mistake_is_said_at_once_with_the_nearest_name(page: TestClient) -> None:
    answer = page.get(
        "/?metod=x&label=caat&min.averagedrop=1&min.confidence=abc&method=gradcm&sort=confidnce&shard=c.tar"
    )
    assert answer.status_code == 400
    for hint in ("'method'", "'cat'", "'average_drop'", "'abc' is no number", "'gradcam'", "'confidence'", "'b.tar'"):
        assert hint in text(answer.text), hint


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999", "0x10", "1_0 0"])
def test_what_is_no_number_is_refused(page: TestClient, number: str) -> None:
    assert page.get(f"/?min.confidence={number}").status_code == 400


def test_a_class_that_the_run_does_not_have_is_refused(page: TestClient) -> None:
    answer = page.get("/?label=3")
    assert answer.status_code == 400
    assert "from 0 to 2" in text(answer.text)


def test_an_empty_result_is_a_page(page: TestClient) -> None:
    answer = page.get("/?label=owl")
    assert answer.status_code == 200
    assert "No image fits these filters." in text(answer.text)


def test_a_mistake_in_sql_stands_under_its_box_and_the_filters_stay(page: TestClient) -> None:
    answer = page.get("/?where=average_drp+%3E+1&min.confidence=0.5")
    assert answer.status_code == 400
    assert "average_drp" in text(answer.text)
    assert 'role="alert"' in answer.text
    assert "No image is shown, because the SQL condition has a mistake." in text(answer.text)
    assert 'name="min.confidence" placeholder="0" value="0.5"' in answer.text
    assert keys(answer.text) == []


def test_the_shards_with_most_mistakes_lead_to_their_images(page: TestClient, rows: list[Row]) -> None:
    answer = page.get("/")
    (link,) = {link for link in addresses(answer.text, "href") if "shard=a.tar" in link and "right=wrong" in link}
    wrong = expected(rows, lambda row: row["shard"] == "a.tar" and row["label"] not in (None, row["predicted"]))
    assert keys(page.get(link).text) == wrong
    assert f"a.tar {len(wrong)} of {len(wrong)} wrong" in text(answer.text)
    assert "largest share of wrong" not in page.get("/?shard=a.tar").text, "of one shard there is nothing to compare"


def test_numbers_stand_before_names_which_may_be_cut_off(page: TestClient) -> None:
    assert "0.75 cat label dog 0.25 average_drop" in text(page.get("/?sort=average_drop").text)


def test_tiles_come_in_pieces(page: TestClient) -> None:
    whole = keys(page.get("/").text)
    pieces = [key for at in (0, 2, 4) for key in keys(page.get(f"/tiles?at={at}&count=2").text)]
    assert pieces == whole
    assert keys(page.get("/tiles?at=9&count=2").text) == []
    first = page.get("/?count=2")
    following = next(link for link in addresses(first.text, "href") if "at=2" in link)
    assert keys(page.get(following + "&count=2").text) == whole[2:4]


def test_histograms_count_the_selection_without_their_own_range(page: TestClient) -> None:
    import re

    answer = page.get("/?min.average_drop=0.4").text
    bars = answer[answer.index('data-brush="average_drop"') :]
    bars = bars[: bars.index("</svg>")]
    heights = [float(height) for height in re.findall(r'class="part[^"]*".*?height="([\d.]+)"', bars)]
    assert sum(height > 0 for height in heights) == 2, "values of 0.25 and 0.5, although 0.25 is filtered out"
    assert 'class="part out"' in bars
