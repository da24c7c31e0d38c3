"""Runs with stored maps and with attributions of captum: rows, failures, refusals, and the identity of the run."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline import publish_all
from mapped import IMAGES, SIDE, fields, keys_of, of_method, prepared, refused, rows_of, stored, table, written
from nets import ToyNet
from nets import images as toy_images
from PIL import Image

import pipeline
from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.audit.sanity.check import check_sanity
from pipeline.cams import build_methods
from pipeline.cams import stored as page
from pipeline.errors import ConfigError, DamagedRunError
from pipeline.planning.planner import plan
from pipeline.results.query import open_run
from pipeline.results.status import status
from pipeline.results.summary import totals
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import progress

CAPTUM = [
    {"captum": {"algorithm": "Occlusion", "window": 8, "stride": 4, "grid": 8}},
    {"captum": {"algorithm": "DeepLift", "grid": 8}},
    {"captum": {"algorithm": "KernelShap", "cells": 2, "samples": 8}},
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module", params=["f32", "u8"])
def source(images: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a CAM method and attributions of captum."""
    path = tmp_path_factory.mktemp("source") / "run"
    return publish_all(fields(images, path, ["gradcam", *CAPTUM], maps=request.param))


@pytest.fixture(scope="module")
def floats(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("floats") / "run"
    return publish_all(fields(images, path, ["gradcam"], maps="f32"))


def metrics_of(row: dict[str, Any]) -> list[float]:
    return [row["average_drop"], row["complexity"], row["insertion"]]


def test_stored_maps_of_a_run_have_the_metrics_of_the_run(images: Path, source: Path, tmp_path: Path) -> None:
    names = ["gradcam", "captum_occlusion", "captum_deep_lift", "captum_kernel_shap"]
    methods = [{"stored": {"path": str(source), "method": name}} for name in names]
    judged = publish_all(fields(images, tmp_path / "judged", methods, maps="f32"))
    for name in names:
        theirs, ours = of_method(source, name), of_method(judged, f"stored_{name}")
        assert set(theirs) == set(ours)
        for key, row in ours.items():
            assert (row["map_height"], row["map_width"]) == (theirs[key]["map_height"], theirs[key]["map_width"])
            if theirs[key]["map_dtype"] == "f32":
                assert row["map"] == theirs[key]["map"]
                assert metrics_of(row) == metrics_of(theirs[key])
            else:
                assert metrics_of(row) == pytest.approx(metrics_of(theirs[key]), abs=0.02)


def test_a_run_with_captum_and_stored_maps_is_complete(images: Path, floats: Path, tmp_path: Path) -> None:
    settings = fields(images, tmp_path / "run", [*CAPTUM, {"stored": {"path": str(floats)}}, "gradcam"])
    path = publish_all(settings)
    store = LocalStore(path)
    run = prepared(settings)
    assert verify(store).problems == []
    assert run.notes() == run.loaded.notes  # the maps of a run name their classes
    assert "captum" in run.manifest.packages
    assert totals(store).with_failures == 0
    state = status(store, 0.0)
    assert (state.chunks_done, state.finished) == (2, {0})
    assert run.pending(progress(store)) == []  # the same command has nothing left to do
    opened = open_run(str(path))
    facts = audit(opened).facts
    assert {"captum", "stored", "gradcam"} <= set(facts["method_pages"])
    assert "captum_occlusion" in render(facts, {})
    assert "stored" not in check_sanity(open_run(str(path)), 2, 1)["method"].unique().to_pylist()
    with_captum = run.manifest.identity.methods["captum_deep_lift"]
    assert with_captum == {
        "name": "captum", "algorithm": "DeepLift", "baseline": "black", "colours": "sum", "grid": 8,
        "version": run.manifest.packages["captum"],
    }  # fmt: skip
    assert "captum" not in prepared(fields(images, tmp_path / "other", ["gradcam"])).manifest.packages


def test_rows_without_a_usable_map_fail_alone(images: Path, tmp_path: Path) -> None:
    keys = keys_of(images)
    good = np.arange(4, dtype=np.float32)
    maps = [good.tobytes(), good[:3].tobytes(), np.array([1, np.nan, 1, 1], np.float32).tobytes(), good.tobytes()]
    content = table(keys[:4], map=maps, height=[2, 2, 2, 4], width=[2, 2, 2, 1])  # one of another shape; one missing
    path = publish_all(fields(images, tmp_path / "run", [*stored(written(tmp_path / "m.parquet", content)), "gradcam"]))
    rows = of_method(path, "stored")
    assert [rows[key]["error_code"] for key in keys] == [None, "stored", "stored", None, "stored"]
    assert {row["error_stage"] for row in rows.values()} == {None, "explain"}
    assert "a f32 map of 2 x 2 cells has 16 bytes, the stored one has 12" in rows[keys[1]]["error_detail"]
    assert rows[keys[2]]["error_detail"] == "the stored map contains NaN or infinity"
    assert rows[keys[4]]["error_detail"] == "there is no stored map of this image"
    assert (rows[keys[3]]["map_height"], rows[keys[3]]["map_width"]) == (4, 1)
    assert all(row["error_code"] is None for row in of_method(path, "gradcam").values())
    assert verify(LocalStore(path)).problems == []
    counted = totals(LocalStore(path))
    assert (counted.with_failures, counted.failures) == (3, {"explain/stored": 3})
    alone = publish_all(fields(images, tmp_path / "alone", ["gradcam"]))
    for key, row in of_method(alone, "gradcam").items():  # failures and other shapes change nothing beside them
        assert metrics_of(row) == metrics_of(of_method(path, "gradcam")[key])


def test_maps_of_another_class_fail_and_maps_without_one_serve_any(images: Path, tmp_path: Path) -> None:
    keys = keys_of(images)
    named = written(tmp_path / "named.parquet", table(keys * 2, target=[1] * IMAGES + [2] * IMAGES))
    unnamed = written(tmp_path / "unnamed.parquet", table(keys))
    methods = [{"stored": {"path": named, "as": "named"}}, {"stored": {"path": unnamed, "as": "unnamed"}}]
    settings = fields(images, tmp_path / "run", methods, explain={"targets": {"classes": [2, 3]}})
    notes = prepared(settings).notes()
    assert [note for note in notes if "name no class" in note] == [
        f"the maps in '{unnamed}' name no class, so each is taken for every class that is explained"
    ]
    rows = rows_of(publish_all(settings))
    failed = [row for row in rows if row["error_code"]]
    assert {(row["method"], row["target"], row["error_detail"]) for row in failed} == {
        ("named", 3, "stored map is of class 1, 2, explained is 3")
    }
    assert len(failed) == IMAGES
    assert {row["map_min"] for row in rows if row["method"] == "named" and row["target"] == 2} == {5, 6, 7, 8, 9}


def test_every_form_of_maps_is_read(images: Path, tmp_path: Path) -> None:
    keys = keys_of(images)
    base = np.arange(4, dtype=np.float32)
    forms = {
        "lists": table(keys, map=[base.tolist()] * IMAGES),
        "u8": table(
            keys, map=[bytes([0, 85, 170, 255])] * IMAGES, map_dtype=["u8"] * IMAGES, map_min=[0.0] * IMAGES,
            map_max=[3.0] * IMAGES,
        ),
        "f16": table(
            keys, map=[(base / 3).astype(np.float16).tobytes()] * IMAGES, dtype=["f16"] * IMAGES, min=[0.0] * IMAGES,
            max=[3.0] * IMAGES,
        ),
        "names": table(keys, key=None, image_key=keys, map=[base.tobytes()] * IMAGES, height=None,
                       map_height=[2] * IMAGES, width=None, map_width=[2] * IMAGES),
    }  # fmt: skip
    methods = [
        {"stored": {"path": written(tmp_path / f"{name}.parquet", content), "as": name}}
        for name, content in forms.items()
    ]
    path = publish_all(fields(images, tmp_path / "run", methods, maps="f32"))
    for row in rows_of(path):
        assert np.frombuffer(row["map"], "<f4") == pytest.approx(base, abs=1e-3)


def test_the_run_id_follows_the_content_of_the_maps(images: Path, tmp_path: Path) -> None:
    keys = keys_of(images)
    first = written(tmp_path / "first.parquet", table(keys))
    moved = written(tmp_path / "moved.parquet", table(keys))
    other = written(tmp_path / "other.parquet", table(keys, map=[b"\0" * 16] * IMAGES))
    one, same, another = (
        prepared(fields(images, tmp_path / "run", stored(path))).manifest.run_id for path in (first, moved, other)
    )
    assert one == same
    assert one != another
    run = prepared(fields(images, tmp_path / "run", stored(first)))
    written(Path(first), table(keys, map=[b"\1" * 16] * IMAGES))
    page._maps.cache_clear()
    with pytest.raises(DamagedRunError, match="have changed since the run began"):
        next(iter(run.methods.values())).failure(keys[0], 0)  # type: ignore[attr-defined]


def test_what_is_wrong_with_the_maps_is_said_before_the_work(images: Path, source: Path, tmp_path: Path) -> None:
    keys = keys_of(images)

    def said(path: str, **options: object) -> str:
        return refused(fields(images, tmp_path / "run", stored(path, **options)))

    assert "there is no file" in said(str(tmp_path / "absent.parquet"))
    assert "is no run folder: it has no run.json" in said(str(images))
    assert "has maps of several methods (one of captum_deep_lift" in said(str(source))
    assert "has no maps of 'gradcm' (did you mean 'gradcam'?)" in said(str(source), method="gradcm")
    assert "name no method (leave it out)" in said(written(tmp_path / "a.parquet", table(keys)), method="x")
    lacking = written(tmp_path / "b.parquet", table(keys, height=None))
    assert "has no column height or map_height (it has key, map, width)" in said(lacking)
    twice = written(tmp_path / "c.parquet", table([keys[0], *keys]))
    assert f"holds two maps of image '{keys[0]}' (keep one)" in said(twice)
    both = written(tmp_path / "d.parquet", table([keys[0], *keys], target=[1, *range(1, IMAGES + 1)]))
    assert f"holds two maps of image '{keys[0]}' and class 1" in said(both)
    others = said(written(tmp_path / "e.parquet", table(["x/1", "x/2", "x/3"])))
    assert f"none of the first {IMAGES} keys is in" in others
    assert f"the images are '{keys[0]}', '{keys[1]}', the maps 'x/1', 'x/2'" in others
    (tmp_path / "f.parquet").write_bytes(b"PAR1 no PAR1")
    assert "cannot be read" in said(str(tmp_path / "f.parquet"))
    assert "holds no map" in said(written(tmp_path / "g.parquet", table([])))
    wrong = fields(images, tmp_path / "run", stored(str(source), method="gradcam"), explain={"metrics": ["coherency"]})
    assert "'coherency' computes maps of changed images, which 'stored_gradcam' cannot" in refused(wrong)


def test_paths_may_be_relative_and_name_several_files(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(images)
    written(tmp_path / "maps-1.parquet", table(keys[:3]))
    written(tmp_path / "maps-2.parquet", table(keys[3:]))
    monkeypatch.chdir(tmp_path)
    settings = fields(images, tmp_path / "run", stored("maps-*.parquet"))
    run = prepared(settings)
    assert run.config.explain.methods == stored(str(tmp_path / "maps-*.parquet"))
    assert all(row["error_code"] is None for row in rows_of(publish_all(settings)))


def test_workers_receive_the_path_and_the_digest_and_no_maps(floats: Path) -> None:
    (method,) = build_methods(stored(str(floats))).values()
    data = pickle.dumps(method)
    assert len(data) < 1000
    page._maps.cache_clear()
    received = pickle.loads(data)
    row = next(iter(of_method(floats, "gradcam").values()))
    assert received == method
    assert received.failure(row["image_key"], row["target"]) == ""
    assert received.identity() == method.identity()  # type: ignore[attr-defined]


def test_a_plan_of_captum_and_stored_maps_is_made(images: Path, floats: Path, tmp_path: Path) -> None:
    methods = [CAPTUM[0], {"stored": {"path": str(floats)}}]
    found = plan(prepared(fields(images, tmp_path / "run", methods)), probe_seconds=0)
    lines = {line.name: line for line in found.lines}
    assert lines["captum_occlusion"].forwards == 1 + 3 * 3
    assert lines["stored"].forwards == 0


def test_notebooks_find_stored_maps_by_their_keys(images: Path, floats: Path) -> None:
    keys, model, pixels_BCHW = keys_of(images), ToyNet(0), toy_images(0, 2)
    methods = stored(str(floats))
    with pytest.raises(ConfigError, match=r"'stored' finds its maps by key \(pass keys, one per image\)"):
        pipeline.explain(model, pixels_BCHW, methods=methods, layer="features.3")
    with pytest.raises(ConfigError, match="image 'x': there is no stored map of this image"):
        pipeline.explain(model, pixels_BCHW, methods=methods, layer="features.3", keys=[keys[0], "x"])
    targets = [of_method(floats, "gradcam")[key]["target"] for key in keys[:2]]
    found = pipeline.explain(model, pixels_BCHW, methods=methods, layer="features.3", keys=keys[:2], targets=targets)
    for key, map_uv in zip(keys, found.maps["stored"], strict=False):
        assert map_uv.numpy().tobytes() == of_method(floats, "gradcam")[key]["map"]
    pipeline.evaluate(model, pixels_BCHW, found, metrics=["average_drop"])
    with pytest.raises(ConfigError, match="'coherency' computes maps of changed images"):
        pipeline.evaluate(model, pixels_BCHW, found, metrics=["coherency"])
