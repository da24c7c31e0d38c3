"""Classes, two runs, and what is taken away."""

import csv
import html
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from handmade import RunMaker
from PIL import Image
from starlette.testclient import TestClient
from viewing import addresses, keys, text, viewing

from pipeline.results.query import open_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    RunMaker(runs / "two", seed=1, methods=("gradcam",), metrics=("average_drop",)).complete()
    return RunMaker(runs / "one").complete().folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[TestClient]:
    with viewing(folder) as client:
        yield client


def test_the_matrix_counts_each_pair_and_leads_to_its_images(page: TestClient) -> None:
    answer = page.get("/classes").text
    cells = [part for part in answer.split("<td") if "predicted as" in part]
    assert ["dog predicted as cat: 3 images" in cell for cell in cells] == [True]
    link = addresses(cells[0], "href")[0]
    assert len(keys(page.get(link).text)) == 3


def test_classes_have_their_numbers_and_sort(page: TestClient) -> None:
    words = text(page.get("/classes").text)
    assert "dog 3 0.0 % 0.750 0.250" in words
    assert page.get("/classes?by=imags").status_code == 400
    assert page.get("/classes?by=-images").status_code == 200


def test_a_class_has_a_mean_map_and_its_best_and_worst(page: TestClient) -> None:
    answer = page.get("/class?class=dog&by=average_drop")
    assert answer.status_code == 200
    assert "3 images" in text(answer.text)
    means = [source for source in addresses(answer.text) if source.startswith("/mean")]
    assert len(means) == 2
    with Image.open(io.BytesIO(page.get(means[0]).content)) as picture:
        assert picture.format == "PNG"
    assert len(keys(answer.text)) == 6
    assert page.get("/class?class=wolf").status_code == 400
    assert page.get("/class").status_code == 400
    assert page.get("/class?class=owl").status_code == 200, "a class without images"


def test_two_runs_are_shown_side_by_side_by_their_change(folder: Path) -> None:
    with viewing(folder, folder.parent / "two") as client:
        answer = client.get("/compare?by=average_drop")
        words = text(answer.text)
        assert "one and two" in words
        assert "4 images in both" in words or "5 images in both" in words
        pictures = [source for source in addresses(answer.text) if source.startswith("/tile")]
        assert sum("run=two" in source for source in pictures) == len(pictures) / 2
        assert all(client.get(source).status_code == 200 for source in pictures[:2])
        assert client.get("/compare?by=pointing_game").status_code == 400, "only one run has it"
        assert client.get("/compare?with=three").status_code == 400
        assert client.get("/compare?by=prediction").status_code == 200


def test_one_run_cannot_be_compared(page: TestClient) -> None:
    assert "view RUN RUN2" in text(page.get("/compare").text)


def test_a_folder_of_runs_offers_each(folder: Path) -> None:
    with viewing(folder.parent) as client:
        assert "2 runs" in text(client.get("/").text)
        assert "scorecam" not in client.get("/?run=two").text
        assert client.get("/?run=three").status_code == 400


@pytest.mark.parametrize(
    "query", ["", "label=dog&min.average_drop=0.3", "right=wrong", "failure=any", "key=0-0", "where=label+%3D+1+--+x",
              "method=scorecam&max.average_drop=0.5&shard=a.tar"]
)  # fmt: skip
def test_the_filter_as_sql_finds_the_same_images(page: TestClient, folder: Path, query: str) -> None:
    answer = page.get(f"/takeaway?{query}").text
    sql = copied(answer)
    with open_run(folder) as run:
        found = {f"{row['shard']}/{row['image_key']}" for row in run.arrow(sql).to_pylist()}
    assert found == set(keys(page.get(f"/?{query}").text))


def copied(page: str) -> str:
    return html.unescape(page.partition("data-copy>")[2].partition("</pre>")[0])


def test_keys_are_csv_that_no_spreadsheet_runs(tmp_path: Path) -> None:
    RunMaker(tmp_path / "run", prefix="=1+1,").complete()
    with viewing(tmp_path / "run") as client:
        answer = client.get("/keys.csv?label=dog")
        rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["shard", "image_key"]
    assert [key for _, key in rows[1:]] == [f"'=1+1,{name}" for name in ("0-0-0", "0-1-0", "1-0-0")]
    assert "attachment" in answer.headers["content-disposition"]


def test_picked_images_become_lists(page: TestClient, folder: Path) -> None:
    answer = page.get("/picked?pick=a.tar/0-0-0&pick=b.tar/1-0-0&pick=a.tar/0-0-0")
    blocks = [html.unescape(part.partition("</pre>")[0]) for part in answer.text.split("data-copy>")[1:]]
    assert blocks[0].split("\n") == ["0-0-0", "1-0-0"]
    assert yaml.safe_load(blocks[1]) == {"keys": ["0-0-0", "1-0-0"]}
    with open_run(folder) as run:
        assert set(run.sql(blocks[2])["image_key"]) == {"0-0-0", "1-0-0"}
    assert page.get("/picked?pick=a.tar/../../etc/passwd").status_code == 404
    assert "No image is picked" in text(page.get("/picked").text)
