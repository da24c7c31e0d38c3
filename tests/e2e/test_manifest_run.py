"""Whole runs on a manifest: the rows of the same images in a folder, bit for bit; metadata in SQL and the report."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.runs import Settings, table_of
from inline import explain_inline, publish_all
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.explain import Ended
from pipeline.demo.scenes import make_scene
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.run_folder import part_names
from pipeline.storage.store import open_store

Explained = Callable[[Settings], Ended]
SCENES = 12
HOSPITALS = ("north", "south")


def write_images(folder: Path) -> list[list[object]]:
    """Write scenes into one folder per class, and return file, label, boxes, hospital of each."""
    rows: list[list[object]] = []
    for index in range(SCENES):
        scene = make_scene(index)
        path = folder / f"c{scene.label}" / f"scene_{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene.image.save(path, "JPEG", quality=90)
        rows.append([str(path), scene.label, json.dumps([scene.box_xyxy]), HOSPITALS[index % 2]])
    return sorted(rows)


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> str:
    with path.open("w", newline="", encoding="utf-16") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows])
    return str(path)


def camatlas(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.slow
def test_a_manifest_with_absolute_paths_gives_the_rows_of_the_folder(
    settings: Settings, explained: Explained, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    rows = write_images(folder)
    for name, header in (("labels", "filename,class_index"), ("boxes", "filename,x0,y0,x1,y1")):
        lines = [header]
        for path, label, boxes, _ in rows:
            key = Path(str(path)).relative_to(folder).as_posix()
            cells = [label] if name == "labels" else json.loads(str(boxes))[0]
            lines.append(",".join(map(str, [key, *cells])))
        (folder / f"{name}.csv").write_text("\n".join(lines))
    (tmp_path / "lists").mkdir()
    manifest = write_csv(tmp_path / "lists" / "images.csv", ["path", "class", "bbox", "hospital"], rows)
    settings["explain"]["methods"] = ["gradcam", {"smooth_gradcam_pp": {"samples": 2}}]
    settings["data"]["shards"] = str(folder)
    of_folder = table_of(publish_all(settings))
    settings["data"] = {"manifest": manifest, "chunk_images": 4, "classes": settings["data"]["classes"]}
    settings["output"]["path"] = str(tmp_path / "run_of_manifest")
    ended = explained(settings)
    of_manifest = table_of(ended.path)
    assert of_manifest.equals(of_folder)
    assert of_manifest.num_rows == 2 * SCENES
    assert None not in of_manifest["energy_in_box"].to_pylist()
    assert verify(open_store(ended.path)).problems == []


@pytest.mark.slow
def test_metadata_is_in_the_rows_in_sql_and_in_the_report(
    settings: Settings, explained: Explained, tmp_path: Path
) -> None:
    rows = [*write_images(tmp_path / "images"), [str(tmp_path / "images" / "none.jpg"), 0, "", "south"]]
    manifest = write_csv(tmp_path / "list.csv", ["path", "class", "bbox", "hospital"], rows)
    settings["data"] |= {"manifest": manifest, "metadata": ["hospital"], "chunk_images": 4}
    del settings["data"]["shards"]
    ended = explain_inline(settings)
    assert ended.failures == {"read/missing": 1}
    store = open_store(ended.path)
    assert verify(store).problems == []
    parts = {part.file: store.read(part.file) for part in part_names(store)}
    for name in list(parts)[1::2]:
        store.delete(name)
    explained(settings)
    assert {part.file: store.read(part.file) for part in part_names(store)} == parts
    assert camatlas("compact", ended.path).exit_code == 0
    with open_run(ended.path) as run:
        counts = run.arrow("SELECT metadata['hospital'] AS h, count(*) AS n FROM images GROUP BY h ORDER BY h")
        assert counts.to_pylist() == [{"h": "north", "n": 6}, {"h": "south", "n": 7}]
        failed = run.arrow("SELECT metadata['hospital'] AS h, error_code FROM failures")
        assert failed.to_pylist() == [{"h": "south", "error_code": "missing"}]
    result = camatlas("audit", ended.path, "--no-model")
    assert result.exit_code == 0, result.output
    facts = json.loads((Path(ended.path) / "_audit" / "audit.json").read_text())
    table = facts["metadata"]["rows"]
    assert sorted((row["name"], row["value"], row["images"], row["explained"]) for row in table) == [
        ("hospital", "north", 6, 6), ("hospital", "south", 7, 6)
    ]  # fmt: skip
    assert "Accuracy by metadata" in (Path(ended.path) / "_audit" / "report.html").read_text()
    key = f"c{make_scene(0).label}/scene_00000.jpg"
    shown = camatlas("show", ended.path, key, "--out", str(tmp_path / "sheet.png"))
    assert (shown.exit_code, shown.stderr) == (0, "")
