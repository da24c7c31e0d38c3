"""A run from tars with parts: its rows and queries, what is refused before the work, and what fails while it runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from inline import publish_all
from nets import ToyNet
from parted import SIZE, VALUES, coloured, drawn, members, shards, without
from PIL import Image
from preparing import prepared, refused, rows_of
from reference import parts as ref
from tars import Files

import pipeline
from jobs.metrics import metrics as print_metric
from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.data.account import Inside, LabelAccount
from pipeline.metrics import Parts
from pipeline.model.baselines import Normalisation
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore
from schemas.explanation import SOURCE_FIELDS

OF_PARTS = ["mass", "rank", "sign"]
METHODS = ["gradcam", "eigen_cam"]
OTHER = "cd" * 32


def fields(folder: Path, *each: Files, **explain: object) -> dict[str, Any]:
    return {
        "data": {"shards": shards(folder / "data", *each)},
        "model": {"name": "nets:ToyNet", "layer": "features.3", "preprocess": {"resize": 32, "crop": 32}},
        "explain": {"methods": METHODS, "metrics": [*OF_PARTS, "complexity"], "targets": "label"} | explain,
        "compute": {"device": "cpu", "batch": 8},
        "output": {"path": str(folder / "run")},
    }


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of images a, whose label is the class of its parts, and b, whose label is another; and of failures."""
    folder = tmp_path_factory.mktemp("parts")
    first = members("a", label=1) + members("b", label=0)
    second = members("c", label=1, values=[1, 2]) + members("d", label=1, target=9) + members("e", label=1, values=[])
    third = members("f", label=1, weights=OTHER) + members("g", label=1)[:2] + members("h", label=1)
    return publish_all(fields(folder, first, members("z", label=1), second + third, members("y", label=1)))


def test_rows_have_the_metrics_of_the_references(run_folder: Path) -> None:
    row = next(one for one in rows_of(run_folder) if one["image_key"] == "a" and one["method"] == "eigen_cam")
    side = int(32 * SIZE[0] / SIZE[1])
    left = round((side - 32) / 2)
    small = coloured(drawn()).resize((side, 32), Image.Resampling.BILINEAR).crop((left, 0, left + 32, 32))
    columns = (np.arange(left, left + 32) + 0.5) * SIZE[0] / side
    lines = (np.arange(32) + 0.5) * SIZE[1] / 32
    index = drawn()[lines.astype(int)][:, columns.astype(int)]
    assert small.size == index.shape
    model = ToyNet(0)
    pixels_BCHW = Normalisation().apply(torch.tensor(np.asarray(small)).permute(2, 0, 1)[None] / 255)
    explained = pipeline.explain(model, pixels_BCHW, methods=METHODS, layer="features.3", targets=[1])
    given = Parts(torch.tensor(index), torch.tensor(VALUES, dtype=torch.float64), 1)
    found = pipeline.evaluate(model, pixels_BCHW, explained, metrics=OF_PARTS, parts=[given])
    heatmap_HW = explained.heatmap("eigen_cam")[0].double().tolist()
    for name in OF_PARTS:
        assert row[name] == pytest.approx(float(found[name]["eigen_cam"][0]), abs=1e-5)
    assert row["mass"] == pytest.approx(ref.mass(heatmap_HW, index.tolist(), VALUES), abs=1e-4)
    assert row["rank"] == pytest.approx(ref.rank(heatmap_HW, index.tolist(), VALUES), abs=1e-4)


def test_metrics_apply_to_rows_of_the_class_of_the_parts(run_folder: Path) -> None:
    known = {(row["image_key"], row["method"]): row for row in rows_of(run_folder) if row["error_code"] is None}
    assert {key for key, _ in known} == {"a", "b", "g", "h", "y", "z"}
    for (key, method), row in known.items():
        none = [row[name] is None for name in OF_PARTS]
        assert none == ([True] * 3 if key in "bg" else [False, False, method == "gradcam"]), (key, method)
        assert row["complexity"] is not None


def test_wrong_parts_are_failure_rows_of_their_image_alone(run_folder: Path) -> None:
    found = {row["image_key"]: row for row in rows_of(run_folder) if row["error_code"]}
    assert {key: (row["error_stage"], row["error_code"]) for key, row in found.items()} == {
        "c": ("decode", "parts"), "d": ("explain", "parts"), "e": ("read", "parts"), "f": ("explain", "parts"),
    }  # fmt: skip
    assert found["d"]["error_detail"] == "the values of the parts are of class 9, but the model has 4 classes"
    assert found["f"]["error_detail"] == (
        f"the values of the parts are those of another model, with the weights {OTHER}"
    )


def test_queries_the_report_and_verification_know_the_metrics(run_folder: Path) -> None:
    assert verify(LocalStore(str(run_folder))).problems == []
    with open_run(run_folder) as run:
        means = run.sql('SELECT method, avg(mass) AS m, avg("rank") AS r, avg(rank) AS s FROM explanations GROUP BY 1')
        board = run.sql('SELECT method, images, mass, "rank", sign FROM leaderboard')
        facts = audit(run).facts
        page = render(facts, {})
    assert set(means["method"]) == set(METHODS)
    assert means["r"].tolist() == means["s"].tolist()
    assert not board[["mass", "rank"]].isna().to_numpy().any()
    assert all(f"{name}" in page for name in OF_PARTS)


def test_a_run_without_these_metrics_ignores_parts(tmp_path: Path) -> None:
    """Its rows and its id are those of a dataset without masks and values, but for the places of images in the tar."""
    bad = members("a", label=1, values=[]) + members("b", label=0, weights=OTHER, target=99)
    settings = fields(tmp_path, bad, metrics=["complexity"])
    rows = rows_of(publish_all(settings))
    assert [row["error_code"] for row in rows] == [None] * 4
    plain = [(name, data) for name, data in bad if name.endswith((".cls", "a.png", "b.png"))]
    again = rows_of(publish_all(fields(tmp_path / "plain", plain, metrics=["complexity"])))
    places = {field.name for field in SOURCE_FIELDS}
    for one, other in zip(rows, again, strict=True):
        assert {name: one[name] for name in one.keys() - places} == {name: other[name] for name in one.keys() - places}
    assert "parts" not in str(prepared(settings).manifest.identity.data)


# what is refused before the work


def test_metrics_of_parts_need_parts(tmp_path: Path) -> None:
    message = refused(fields(tmp_path, without(without(members(label=1), "json"), "parts.png")))
    assert "explain.metrics: mass, rank, sign need the values of parts, but no image has any" in message
    assert "parts.png" in message
    message = refused(fields(tmp_path, without(without(members(label=1), "json"), "parts.png"), metrics=["sign"]))
    assert "sign needs the values of parts" in message


def test_parts_of_another_model_are_refused_and_those_of_this_one_taken(tmp_path: Path) -> None:
    settings = fields(tmp_path, members("a", label=1), members("b", label=1, weights=OTHER))
    message = refused(settings)
    assert f"the values of the parts are those of another model, with the weights {OTHER}" in message
    digest = prepared(settings | {"explain": {"metrics": ["complexity"]}}).loaded.weights_digest
    run = prepared(fields(tmp_path / "same", members("a", label=1, weights=digest)))
    assert run.account.inside is not None
    assert (run.account.inside.parts, run.account.inside.weights) == (1, (digest,))
    assert rows_of(publish_all(fields(tmp_path / "same", members("a", label=1, weights=digest))))[0]["mass"] is not None


def test_parts_that_are_all_wrong_are_refused_with_the_reason(tmp_path: Path) -> None:
    wrong = [file for key in "abc" for file in members(key, label=1, values=[])]
    message = refused(fields(tmp_path, wrong))
    assert "data.shards: the parts of 3 images at the beginning of 1 shard are wrong: parts.values is not" in message
    assert prepared(fields(tmp_path / "few", members(label=1, values=[]), members("x", label=1)))


def test_a_decoder_is_refused_with_metrics_of_parts(tmp_path: Path) -> None:
    settings = fields(tmp_path, members(label=1))
    settings["data"]["decoder"] = "decoders:npy"
    assert "which images of a decoder (data.decoder) do not have" in refused(settings)


def test_the_account_counts_parts_if_there_are_any(tmp_path: Path) -> None:
    inside = prepared(fields(tmp_path, members(label=1), metrics=["complexity"])).account.inside
    assert inside is not None
    assert "1 have a label, 1 have boxes, 1 have parts; the others" in inside.line()
    assert "parts" not in Inside(1, 1, 3, 2, 1).line()
    account = LabelAccount(inside=inside)
    assert LabelAccount.from_json(account.to_json()) == account
    old = account.to_json()
    old["inside"] = {name: old["inside"][name] for name in ("shards", "of", "images", "labels", "boxes")}
    assert LabelAccount.from_json(old).inside == Inside(1, 1, 1, 1, 1)


def test_the_page_of_a_metric_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for name in OF_PARTS:
        with pytest.raises(typer.Exit) as ended:
            print_metric(name)
        assert ended.value.exit_code == 0
        assert f"{name} = " in capsys.readouterr().out
