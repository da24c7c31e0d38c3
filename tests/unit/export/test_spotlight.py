"""The frame for Spotlight: one row per case, pictures as bytes, and a data type for every column."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictured import CROP, PicturedRun
from PIL import Image

from pipeline.export import export_run, spotlight

VIEWERS = os.environ.get("CAMATLAS_VIEWERS", sys.executable)


def exported(run: PicturedRun, dest: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    export_run(str(run.folder), "spotlight", dest)
    dtypes: dict[str, str] = json.loads((dest / "dtype.json").read_text(encoding="utf-8"))
    table = pq.read_table(dest / "frame.parquet")
    assert table.column_names == list(dtypes)
    return table.to_pylist(), dtypes


def picture(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


def test_a_row_holds_everything_about_one_image(pictured: PicturedRun, dest: Path) -> None:
    rows, dtypes = exported(pictured, dest)
    assert [row["image_key"] for row in rows] == ["0-0-0", "0-0-1", "0-1-0", "1-0-0"]
    assert {name: value for name, value in rows[0].items() if dtypes[name] != "Image"} == {
        "image_key": "0-0-0", "shard": "a.parquet", "label": "dog", "predicted": "cat", "correct": False,
        "confidence": 0.75, "explained": "cat", "explained_confidence": 0.75, "target_rule": "predicted",
        "average_drop_gradcam": 0.25, "average_drop_scorecam": 0.5, "pointing_game_gradcam": 0.25,
        "pointing_game_scorecam": 0.5,
    }  # fmt: skip
    assert [name for name, dtype in dtypes.items() if dtype == "Image"] == [
        "image",
        "heatmap_gradcam",
        "heatmap_scorecam",
    ]
    assert (rows[1]["label"], rows[1]["correct"]) == ("", None)
    assert {path.name for path in dest.iterdir()} == {"frame.parquet", "dtype.json"}


def test_pictures_have_the_models_size_and_heat_maps_are_overlays(pictured: PicturedRun, dest: Path) -> None:
    rows, _ = exported(pictured, dest)
    plain = {picture(row["image"]).size for row in rows} | {picture(row["heatmap_gradcam"]).size for row in rows}
    assert plain == {(CROP, CROP)}
    cold, hot = (
        np.asarray(picture(rows[1]["heatmap_gradcam"]), np.float64)[place].mean((0, 1))
        for place in (np.s_[:6, :6], np.s_[-6:, -6:])
    )
    assert hot[0] > cold[0]  # the map rises from the first cell to the last: yellow against violet
    assert hot[1] > cold[1] + 40
    assert rows[2]["heatmap_scorecam"] is None


def test_boxes_are_drawn_only_on_the_image(pictured: PicturedRun, dest: Path) -> None:
    rows, _ = exported(pictured, dest)
    pink = np.array([255, 45, 120])
    corner = np.asarray(picture(rows[0]["image"]), np.float64)[8:16, 8:9].mean((0, 1))
    assert np.abs(corner - pink).mean() < 60
    assert (
        np.abs(np.asarray(picture(rows[0]["heatmap_gradcam"]), np.float64)[8:16, 8:9].mean((0, 1)) - pink).mean() > 60
    )


def test_rows_are_written_in_groups(pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spotlight, "_ROWS", 3)
    assert len(exported(pictured, dest)[0]) == 4
    assert pq.ParquetFile(dest / "frame.parquet").metadata.num_row_groups == 2


def test_each_explained_class_is_a_row(tmp_path: Path, dest: Path) -> None:
    rows, _ = exported(PicturedRun(tmp_path / "run", targets=2).complete(), dest)
    assert [(row["image_key"], row["explained"]) for row in rows[:3]] == [
        ("0-0-0", "cat"),
        ("0-0-1", "dog"),
        ("0-0-0", "owl"),
    ]
    assert rows[0]["image"] == rows[2]["image"]


def test_originals_that_are_gone_are_grey(pictured: PicturedRun, dest: Path) -> None:
    (pictured.data / "a.parquet").unlink()
    (pictured.data / "b.parquet").unlink()
    notes = export_run(str(pictured.folder), "spotlight", dest)
    assert notes[1:] == ["4 original images were not found; grey pictures replace them"]
    rows = pq.read_table(dest / "frame.parquet").to_pylist()
    assert {picture(row["image"]).getpixel((0, 0)) for row in rows} == {(128, 128, 128)}


@pytest.mark.parametrize(
    "word",
    [
        "../../x",
        "{'path': '/etc/passwd'}",
        "a\0b",
        *(pytest.param(word, marks=pytest.mark.campaign) for word in ("=1+1", "image", "\u202e")),
    ],
)
def test_hostile_texts_are_only_values(tmp_path: Path, dest: Path, word: str) -> None:
    run = PicturedRun(tmp_path / "run", methods=(word, f"{word}?"), prefix=word, classes=(word,)).complete()
    rows, dtypes = exported(run, dest)
    assert (rows[0]["image_key"], rows[0]["predicted"], dtypes["image_key"]) == (f"{word}0-0-0", word, "str")
    assert len(dtypes) == 10 + 2 + 4
    assert {path.name for path in tmp_path.iterdir()} == {"run", "data", "new"}
    kinds = {name: pq.read_schema(dest / "frame.parquet").field(name).type for name in dtypes}
    assert {dtype for name, dtype in dtypes.items() if kinds[name] == pa.binary()} == {"Image"}


SHOW = """
import json, sys, urllib.request
from renumics import spotlight
viewer = spotlight.show(f"{sys.argv[1]}/frame.parquet", dtype=json.load(open(f"{sys.argv[1]}/dtype.json")),
                        no_browser=True, wait=False)
table = json.load(urllib.request.urlopen(f"http://127.0.0.1:{viewer.port}/api/table/"))
for column in table["columns"]:
    print("read", column["name"], column["dtype"]["name"], len(column["values"]))
viewer.close()
"""


def test_spotlight_shows_it(pictured: PicturedRun, dest: Path, tmp_path: Path) -> None:
    known = [VIEWERS, "-c", "import importlib.metadata as m; m.version('renumics-spotlight')"]
    if subprocess.run(known, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("Spotlight is not installed; CAMATLAS_VIEWERS may name a Python that has it")
    _, dtypes = exported(pictured, dest)
    aside = {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run([VIEWERS, "-c", SHOW, str(dest)], capture_output=True, text=True, env=os.environ | aside)
    read = [line for line in ended.stdout.splitlines() if line.startswith("read")]
    assert read == [f"read {name} {dtype} 4" for name, dtype in dtypes.items()], ended.stderr
