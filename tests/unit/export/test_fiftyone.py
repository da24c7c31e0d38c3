"""FiftyOne's files on disk: samples with classes, boxes, numbers and heat maps, also under hostile names."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictured import BOX, CROP, PicturedRun
from pictures import noise
from PIL import Image

from pipeline.explain.rows import Row
from pipeline.export import export_run
from pipeline.results.query import open_run
from pipeline.storage.run_folder import PartName

VIEWERS = os.environ.get("CAMATLAS_VIEWERS", sys.executable)
"""A Python with FiftyOne and Spotlight, which need a separate environment."""


def exported(run: PicturedRun, dest: Path) -> list[dict[str, Any]]:
    export_run(str(run.folder), "fiftyone", dest)
    samples: list[dict[str, Any]] = json.loads((dest / "samples.json").read_text(encoding="utf-8"))["samples"]
    return samples


def test_a_sample_holds_everything_about_one_image(pictured: PicturedRun, dest: Path) -> None:
    samples = exported(pictured, dest)
    assert [sample["image_key"] for sample in samples] == ["0-0-0", "0-0-1", "0-1-0", "1-0-0"]
    assert samples[0] == {
        "filepath": "data/00000000.jpg",
        "tags": [],
        "shard": "a.parquet",
        "image_key": "0-0-0",
        "target_rule": "predicted",
        "ground_truth": {"_cls": "Classification", "label": "dog", "confidence": None},
        "predictions": {"_cls": "Classification", "label": "cat", "confidence": 0.75},
        "explained": {"_cls": "Classification", "label": "cat", "confidence": 0.75},
        "boxes": {
            "_cls": "Detections",
            "detections": [
                {
                    "_cls": "Detection",
                    "label": "dog",
                    "bounding_box": [BOX[0] / 64, BOX[1] / 48, (BOX[2] - BOX[0]) / 64, (BOX[3] - BOX[1]) / 48],
                }
            ],
        },
        "average_drop_gradcam": 0.25,
        "average_drop_scorecam": 0.5,
        "pointing_game_gradcam": 0.25,
        "pointing_game_scorecam": 0.5,
        "heatmap_gradcam": {"_cls": "Heatmap", "map_path": "fields/heatmap_gradcam/00000000.png", "range": [0, 255]},
        "heatmap_scorecam": {"_cls": "Heatmap", "map_path": "fields/heatmap_scorecam/00000000.png", "range": [0, 255]},
    }
    assert {"ground_truth", "boxes"}.isdisjoint(samples[1])
    metadata = json.loads((dest / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["info"]["camatlas"]["run_id"] == pictured.manifest.run_id
    assert "version" not in metadata


def test_a_method_that_failed_on_an_image_has_no_field(pictured: PicturedRun, dest: Path) -> None:
    failed = exported(pictured, dest)[2]
    assert {name for name in failed if "scorecam" in name} == set()
    assert {name for name in failed if "gradcam" in name} == {
        "heatmap_gradcam", "average_drop_gradcam", "pointing_game_gradcam",
    }  # fmt: skip


def test_heat_maps_are_the_stored_codes(pictured: PicturedRun, dest: Path) -> None:
    samples = exported(pictured, dest)
    with open_run(pictured.folder) as run:
        rows = run.table(where="method = 'gradcam'").to_pylist()
    stored = {row["image_key"]: np.frombuffer(row["map"], np.uint8).reshape(3, 4) for row in rows}
    for sample in samples:
        with Image.open(dest / sample["heatmap_gradcam"]["map_path"]) as opened:
            assert opened.mode == "L"
            assert np.array_equal(np.asarray(opened), stored[sample["image_key"]])


def test_a_constant_map_is_black(tmp_path: Path, dest: Path) -> None:
    class Constant(PicturedRun):
        def rows(self, part: PartName) -> list[Row]:
            rows = super().rows(part)
            rows[0] |= {"map": bytes(12), "map_min": 3.0, "map_max": 3.0, "degenerate": True}
            return rows

    sample = exported(Constant(tmp_path / "run").complete(), dest)[0]
    with Image.open(dest / sample["heatmap_gradcam"]["map_path"]) as opened:
        assert not np.asarray(opened).any()


def test_pictures_are_framed_as_for_the_model(pictured: PicturedRun, dest: Path) -> None:
    expected = noise(64, 48).resize((CROP, CROP), Image.Resampling.BILINEAR)
    with Image.open(dest / exported(pictured, dest)[0]["filepath"]) as opened:
        assert opened.size == (CROP, CROP)
        assert np.abs(np.asarray(opened, np.float64) - np.asarray(expected, np.float64)).mean() < 20


def test_each_explained_class_is_a_sample_over_the_same_picture(tmp_path: Path, dest: Path) -> None:
    samples = exported(PicturedRun(tmp_path / "run", targets=2).complete(), dest)
    assert [(sample["image_key"], sample["explained"]["label"], sample["target_rule"]) for sample in samples[:3]] == [
        ("0-0-0", "cat", "predicted"),
        ("0-0-1", "dog", "predicted"),
        ("0-0-0", "owl", "label"),
    ]
    assert samples[0]["filepath"] == samples[2]["filepath"]
    assert samples[0]["heatmap_gradcam"] != samples[2]["heatmap_gradcam"]
    assert len(list((dest / "data").iterdir())) == 4


def test_originals_that_are_gone_share_one_grey_picture(pictured: PicturedRun, dest: Path) -> None:
    (pictured.data / "b.parquet").unlink()
    notes = export_run(str(pictured.folder), "fiftyone", dest)
    assert notes[1:] == ["1 original images were not found; grey pictures replace them"]
    samples = json.loads((dest / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert [sample["filepath"] for sample in samples] == [
        f"data/{name}.jpg" for name in ("00000000", "00000001", "00000002", "missing")
    ]
    assert "boxes" not in samples[3]
    with Image.open(dest / "data" / "missing.jpg") as opened:
        assert (opened.size, opened.getpixel((0, 0))) == ((CROP, CROP), (128, 128, 128))


def test_metrics_that_do_not_apply_are_left_out(tmp_path: Path, dest: Path) -> None:
    class Sparse(PicturedRun):
        def rows(self, part: PartName) -> list[Row]:
            rows = super().rows(part)
            rows[0] |= {"average_drop": None, "pointing_game": float("inf"), "confidence": float("inf")}
            return rows

    sample = exported(Sparse(tmp_path / "run").complete(), dest)[0]
    assert sample["predictions"]["confidence"] is None
    assert {"average_drop_gradcam", "pointing_game_gradcam"}.isdisjoint(sample)
    assert sample["average_drop_scorecam"] == 0.5


def test_classes_without_names_are_numbers(tmp_path: Path, dest: Path) -> None:
    sample = exported(PicturedRun(tmp_path / "run", classes=("cat",)).complete(), dest)[0]
    assert (sample["predictions"]["label"], sample["ground_truth"]["label"]) == ("cat", "1")


@pytest.mark.parametrize(
    "word",
    [
        "../../../../x",
        pytest.param("/x/y", marks=pytest.mark.campaign),
        "a\0b",
        pytest.param("..", marks=pytest.mark.campaign),
        pytest.param("<img src=x onerror=alert(1)>", marks=pytest.mark.campaign),
        '"}]}',
        "\u202e",
        "_id",
        pytest.param("$where", marks=pytest.mark.campaign),
        pytest.param("a.b", marks=pytest.mark.campaign),
        "C:\\x",
    ],
)
def test_no_text_becomes_a_file_name_or_breaks_a_field(tmp_path: Path, dest: Path, word: str) -> None:
    run = PicturedRun(
        tmp_path / "run", methods=(word, f"{word}!"), metrics=("average_drop", word), prefix=word, classes=(word,)
    )
    samples = exported(run.complete(), dest)
    assert samples[0]["image_key"] == f"{word}0-0-0"
    assert samples[0]["predictions"]["label"] == word
    fields = {name for sample in samples for name in sample} | {path.name for path in (dest / "fields").iterdir()}
    assert all(name.isidentifier() and name.isascii() and not name.startswith("_") for name in fields)
    assert len([name for name in samples[0] if name.startswith("heatmap_")]) == 2
    assert len([name for name in samples[0] if not name.startswith("heatmap_")]) == 9 + 4
    assert {path.name for path in tmp_path.iterdir()} == {"run", "data", "new"}
    assert {path.name for path in dest.iterdir()} == {"data", "fields", "samples.json", "metadata.json"}
    files = [sample["filepath"] for sample in samples] + [
        sample[name]["map_path"] for sample in samples for name in sample if name.startswith("heatmap_")
    ]
    assert all((dest / file).is_file() and (dest / file).resolve().is_relative_to(dest) for file in files)


OTHER_FIELDS = ("tags", "image_key", "boxes", "created_at")


@pytest.mark.parametrize(
    "method", ["filepath", "id", *(pytest.param(name, marks=pytest.mark.campaign) for name in OTHER_FIELDS)]
)
def test_a_method_may_be_named_like_a_field(tmp_path: Path, dest: Path, method: str) -> None:
    sample = exported(PicturedRun(tmp_path / "run", methods=(method, "gradcam")).complete(), dest)[0]
    assert sample["image_key"] == "0-0-0"
    assert sample[f"heatmap_{method}"]["_cls"] == "Heatmap"


READ = """
import sys
import fiftyone
found = fiftyone.Dataset.from_dir(sys.argv[1], dataset_type=fiftyone.types.FiftyOneDataset)
for sample in found:
    drawn = sample["heatmap_scorecam"]
    print("read", sample["image_key"], sample["explained"]["label"], sample["average_drop_gradcam"],
          None if drawn is None else drawn.get_map().shape)
"""


def test_fiftyone_reads_it(pictured: PicturedRun, dest: Path, tmp_path: Path) -> None:
    known = [VIEWERS, "-c", "import importlib.metadata as m; m.version('fiftyone')"]
    if subprocess.run(known, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("FiftyOne is not installed; CAMATLAS_VIEWERS may name a Python that has it")
    exported(pictured, dest)
    aside = {"HOME": str(tmp_path), "FIFTYONE_DATABASE_DIR": str(tmp_path / "db"), "FIFTYONE_DO_NOT_TRACK": "true"}
    ended = subprocess.run([VIEWERS, "-c", READ, str(dest)], capture_output=True, text=True, env=os.environ | aside)
    assert [line for line in ended.stdout.splitlines() if line.startswith("read")] == [
        "read 0-0-0 cat 0.25 (3, 4)",
        "read 0-0-1 dog 0.5 (3, 4)",
        "read 0-1-0 cat 0.25 None",
        "read 1-0-0 cat 0.25 (3, 4)",
    ], ended.stderr
