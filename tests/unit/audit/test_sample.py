"""The sample of a large run: the same images whatever the order, bounded, named on the page; small runs are whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from report_scale import write_run

from pipeline.audit import sample as sampling
from pipeline.audit.facts import audit
from pipeline.audit.maps import load_maps
from pipeline.audit.page import render
from pipeline.audit.sample import bound, draw
from pipeline.audit.values import load_values, values_at
from pipeline.results.query import Run, open_run

IMAGES, DRAWN = 600, 200


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("scaled") / "run"
    write_run(folder, IMAGES, 50)
    with open_run(folder, str(folder.parent / "scratch")) as opened:
        yield opened


def test_the_sample_has_its_size_and_rests_on_keys_alone(run: Run) -> None:
    drawn = draw(run, DRAWN)
    assert (drawn.images, drawn.of) == (DRAWN, IMAGES)
    values = load_values(run, drawn)
    again = run.arrow(f"SELECT shard, image_key FROM images WHERE {drawn.condition}").to_pylist()
    assert sorted((row["shard"], row["image_key"]) for row in again) == values.places
    smaller = load_values(run, draw(run, DRAWN // 2)).places
    assert set(smaller) < set(values.places), "a smaller sample is a part of a larger one"
    assert 0.3 < values.held_out_I.mean() < 0.7, "both halves are drawn"


def test_values_and_maps_of_a_sample_are_those_of_the_whole_run(run: Run) -> None:
    whole, drawn = load_values(run), load_values(run, draw(run, DRAWN))
    assert whole.sample.is_whole
    rows = [whole.places.index(place) for place in drawn.places]
    assert np.array_equal(whole.sums_IK[rows], drawn.sums_IK)
    assert np.array_equal(whole.confidences_I[rows], drawn.confidences_I)
    maps = [load_maps(run, values.places).by_method["layercam"] for values in (whole, drawn)]
    assert np.array_equal(maps[0][rows], maps[1])
    assert maps[1].any((1, 2)).all()
    some = values_at(run, [*drawn.places[5:9], ("none.tar", "none")])
    assert some.places == drawn.places[5:9]
    assert np.array_equal(some.sums_IK, drawn.sums_IK[5:9])


def test_many_methods_draw_fewer_images() -> None:
    assert bound(2, 4) == bound(8, 6) == sampling.MAX_IMAGES
    assert sampling.MIN_IMAGES <= bound(37, 20) < 20_000
    assert bound(4000, 20) == sampling.MIN_IMAGES


def facts_of(run: Run) -> dict[str, Any]:
    found = audit(run, ask_model=False)
    return found.facts | {"page": render(found.facts, found.pictures)}


def test_the_page_says_where_a_number_rests_on_a_sample(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = facts_of(run)
    assert "drawn by key" not in whole["page"]
    monkeypatch.setattr(sampling, "MAX_IMAGES", DRAWN)
    monkeypatch.setattr(sampling, "MIN_IMAGES", DRAWN)
    drawn = facts_of(run)
    assert drawn["sample"]["sentence"] == f"{DRAWN} of {IMAGES} images, drawn by key"
    assert drawn["page"].count(drawn["sample"]["sentence"]) >= 5
    for section in ("accuracy", "cost", "shards", "failures", "metadata"):
        assert drawn[section] == whole[section], "what needs no sample rests on all images"
    for row, full in zip(drawn["leaderboard"]["rows"], whole["leaderboard"]["rows"], strict=True):
        for metric, interval in row["intervals"].items():
            assert row[metric] == full[metric]
            assert interval["images"] == DRAWN
            width, wanted = ((one["high"] - one["low"]) for one in (interval, full["intervals"][metric]))
            assert interval["low"] < row[metric] < interval["high"]
            assert width == pytest.approx(wanted, rel=0.25), "the interval is that of the mean over all images"
    assert run.arrow(drawn["wins"]["sql"])["images"].to_pylist() == [DRAWN, DRAWN]
