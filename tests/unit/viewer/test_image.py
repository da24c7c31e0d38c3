"""The page of one image, its pictures and its neighbours."""

import io
from pathlib import Path

import numpy as np
import pytest
from handmade import PARTS
from PIL import Image
from starlette.testclient import TestClient
from viewing import addresses, text

from pipeline.results.query import decode_row, open_run
from pipeline.viewer.maps import MapReader
from pipeline.viewer.pictures import overlay_layer

FIRST = "in=a.tar&image=0-0-0"


def test_it_shows_every_method_the_numbers_and_where_the_image_lies(page: TestClient) -> None:
    answer = page.get(f"/image?{FIRST}")
    words = text(answer.text)
    for said in ("gradcam", "scorecam", "a.tar", "0-0-0", "cat 0.750", "dog wrong", "0.250", "0.500", "1 of 5"):
        assert said in words, said
    assert len([source for source in addresses(answer.text) if source.startswith("/overlay")]) == 2
    assert "What the numbers mean" in words


def test_a_failed_image_says_why(page: TestClient) -> None:
    words = text(page.get("/image?in=b.tar&image=1-0-1").text)
    assert "This image failed: decode/truncated: half of it is gone" in words


def test_a_failed_method_says_so_beside_the_others(page: TestClient) -> None:
    answer = page.get("/image?in=a.tar&image=0-1-0")
    assert "scorecam failed: explain/" in text(answer.text)
    assert len([source for source in addresses(answer.text) if source.startswith("/overlay")]) == 1


def test_neighbours_follow_the_filter_and_its_order(page: TestClient) -> None:
    seen = ["1-0-0"]
    link = f"/image?label=dog&sort=image_key&order=desc&in=b.tar&image={seen[0]}"
    for _ in range(5):
        answer = page.get(link).text
        following = [part for part in answer.split("<a ") if part.startswith('rel="next"')]
        if not following:
            break
        link = addresses(following[0], "href")[0]
        seen.append(link.rpartition("image=")[2])
    assert seen == ["1-0-0", "0-1-0", "0-0-0"]


def test_an_image_outside_of_the_selection_is_shown_without_neighbours(page: TestClient) -> None:
    answer = page.get(f"/image?label=owl&{FIRST}")
    assert answer.status_code == 200
    assert 'rel="next"' not in answer.text


@pytest.mark.parametrize(
    "key", ["0-0-9", "../../etc/passwd", "/etc/passwd", "%00", "a'b", "%22", "0-0-0%0a", "", "\\..\\x"]
)
@pytest.mark.parametrize("path", ["/image", "/tile", "/ground", "/overlay", "/sheet"])
def test_an_unknown_key_is_a_sentence(page: TestClient, path: str, key: str) -> None:
    answer = page.get(f"{path}?in=a.tar&image={key}")
    assert answer.status_code == 404
    assert "has no image" in answer.text


def test_the_overlay_is_the_stored_map(page: TestClient, folder: Path) -> None:
    with open_run(folder) as run:
        row = run.arrow("SELECT * FROM parts WHERE image_key = '0-0-1' AND method = 'scorecam'").to_pylist()[0]
    answer = page.get("/overlay?in=a.tar&image=0-0-1&target=1&method=scorecam")
    with Image.open(io.BytesIO(answer.content)) as picture:
        shown = np.asarray(picture)
        expected = np.asarray(overlay_layer(decode_row(row), (picture.height, picture.width)))
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(shown, expected)
    assert shown[..., 3].min() == 0, "clear where the map is lowest"
    assert shown[..., 3].max() > 200


def test_a_picture_is_asked_for_once(page: TestClient) -> None:
    first = page.get(f"/tile?{FIRST}&method=gradcam")
    again = page.get(f"/tile?{FIRST}&method=gradcam", headers={"if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert first.headers["etag"] != page.get(f"/tile?{FIRST}&method=scorecam").headers["etag"]
    with Image.open(io.BytesIO(first.content)) as picture:
        assert max(picture.size) == 224


def test_without_its_image_a_map_stands_on_grey_and_the_page_says_so(page: TestClient) -> None:
    assert "shown in grey" in text(page.get(f"/image?{FIRST}").text)
    with Image.open(io.BytesIO(page.get(f"/ground?{FIRST}").content)) as picture:
        colours = picture.getcolors() or []
    assert len(colours) == 1
    red, green, blue = colours[0][1]
    assert max(red, green, blue) - min(red, green, blue) < 20


def test_the_sheet_is_saved_under_a_safe_name(page: TestClient) -> None:
    answer = page.get(f"/sheet?{FIRST}")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''0-0-0.png"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == "PNG"


def test_every_map_is_found_at_its_place(folder: Path) -> None:
    from pipeline.viewer.engine import Engine
    from pipeline.viewer.index import RunIndex

    with open_run(folder) as run:
        index = RunIndex.build(0, "run", run, Engine())
        maps = MapReader(run)
        rows = index.rows(range(20))
        stored = {
            (row["image_key"], row["method"]): row
            for _, table in run.tables() for row in table.to_pylist() if row["map"] is not None
        }  # fmt: skip
        found = {(row["image_key"], row["method"]): maps.map_of(row) for row in rows}
        assert len(PARTS) == 3
        assert {key for key, map_uv in found.items() if map_uv is not None} == set(stored)
        for key, row in stored.items():
            np.testing.assert_array_equal(found[key], decode_row(row))
