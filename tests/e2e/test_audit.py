"""The report on a real run: queries reproduce its numbers, rebuilding gives the same bytes, keys can be hidden."""

import copy
import hashlib
import html
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inline import config_of, publish_all
from typer.testing import CliRunner

from jobs.audit import BUDGETS, Gallery
from jobs.cli import app
from pipeline.audit.facts import audit as audited
from pipeline.audit.sanity import check_sanity
from pipeline.audit.tables import rounded
from pipeline.demo.data import run_file
from pipeline.results.query import open_run
from pipeline.run.paths import absolute
from pipeline.run.preflight import prepare
from pipeline.storage.ownership import take_ownership

SECRET = b"sixteen bytes of secret"


Folders = tuple[str, str]


@pytest.fixture(scope="module")
def folders(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A run with boxes, box confidences and a sanity check, and a run of another version of the model."""
    base = tmp_path_factory.mktemp("audited")
    fields: Any = run_file(scenes)
    fields["explain"] = {
        "methods": ["gradcam", "gradcam_pp"],
        "metrics": ["average_drop", "increase", "energy_in_box", "box_removed_confidence", "box_only_confidence"],
    }
    one, other = copy.deepcopy(fields), copy.deepcopy(fields)
    one["about"] = {"owner": "An owner", "intended_use": "A test", "our own key": "Its text"}
    one["output"]["path"], other["output"]["path"] = str(base / "one"), str(base / "other")
    other["explain"]["methods"] = ["gradcam", "layercam"]
    other["model"]["weights"] = weights_that_never_predict_star(fields["model"]["weights"], base)
    for settings in (one, other):
        publish_all(settings)
    with open_run(str(base / "one")) as opened:
        check_sanity(opened, 4, 2)
    return str(base / "one"), str(base / "other")


def report(*words: str) -> None:
    assert CliRunner().invoke(app, ["audit", *words]).exit_code == 0


def tables(facts: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(facts, dict):
        if facts.get("sql") and "rows" in facts:
            yield path, facts
        for name, value in facts.items():
            yield from tables(value, f"{path}.{name}")
    if isinstance(facts, list):
        for place, value in enumerate(facts):
            yield from tables(value, f"{path}[{place}]")


def equal(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return one == other


def test_every_query_of_the_page_gives_the_numbers_of_its_table(folders: Folders) -> None:
    with open_run(folders[0]) as opened:
        facts = audited(opened).facts
        found = dict(tables(facts))
        for path, table in found.items():
            rows = rounded(opened.arrow(table["sql"]).to_pylist())
            assert len(rows) >= len(table["rows"]), path
            for row, shown in zip(rows, table["rows"], strict=False):
                assert all(equal(row[name], shown[name]) for name in row if name in shown), path
        for group in facts["gallery"]:
            if group["sql"]:
                places = [(row["shard"], row["image_key"]) for row in opened.arrow(group["sql"]).to_pylist()]
                assert places == [(image["shard"], image["image_key"]) for image in group["images"]]
    assert len([path for path, table in found.items() if table["rows"]]) >= 10
    assert ".accuracy.overall" in found
    assert ".background.classes" in found


def test_rebuilding_gives_the_same_bytes(folders: Folders, tmp_path: Path) -> None:
    written = [tmp_path / name for name in ("once", "again")]
    for folder in written:
        report(folders[0], "--out", str(folder))
    files = sorted(path.relative_to(written[0]) for path in written[0].rglob("*") if path.is_file())
    assert Path("report.html") in files
    assert Path("tables/classes.csv") in files
    for file in files:
        assert (written[0] / file).read_bytes() == (written[1] / file).read_bytes(), file
    page = (written[0] / "report.html").read_bytes()
    assert len(page) < BUDGETS[Gallery.normal]
    stated = json.loads((written[0] / "audit.json").read_text())["report"]
    assert stated == {"file": "report.html", "sha256": hashlib.sha256(page).hexdigest(), "bytes": len(page)}


def test_the_printed_command_tells_a_changed_page(folders: Folders, tmp_path: Path) -> None:
    report(folders[0], "--out", str(tmp_path), "--no-model")
    page = tmp_path / "report.html"
    lines = html.unescape(page.read_text()).splitlines()
    (command,) = [line.removeprefix("<pre>").removesuffix("</pre>") for line in lines if "sha256sum -c" in line]
    command = command.replace("python3", sys.executable, 1)

    def is_sound() -> bool:
        return subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, check=False).returncode == 0

    assert is_sound()
    page.write_bytes(page.read_bytes().replace(b"Findings", b"findings", 1))
    assert not is_sound()


def test_about_heads_the_report_and_is_no_part_of_the_identity(folders: Folders, scenes: Path) -> None:
    with open_run(folders[0]) as opened:
        facts, manifest = audited(opened, ask_model=False).facts, opened.manifest
    assert facts["about"] == [
        {"name": "owner", "text": "An owner"},
        {"name": "intended use", "text": "A test"},
        {"name": "our own key", "text": "Its text"},
    ]
    fields: Any = copy.deepcopy(manifest.config) | {"about": {"owner": "Another owner"}}
    run = prepare(absolute(config_of(fields)))
    assert run.manifest.run_id == manifest.run_id
    assert run.manifest.config["about"]["owner"] == "Another owner"
    assert not take_ownership(run.store, run.manifest), "the same run, which is resumed"


def test_a_report_without_pictures_or_keys(folders: Folders, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    report(folders[0], "--out", str(tmp_path / "open"), "--no-model")
    report(folders[0], "--out", str(tmp_path / "redacted"), "--no-model", "--no-images", "--redact-keys", str(secret))
    assert "data:image/webp" in (tmp_path / "open" / "report.html").read_text()
    assert "data:image/webp" not in (tmp_path / "redacted" / "report.html").read_text()
    for path in (tmp_path / "redacted").rglob("*"):
        assert path.is_dir() or "scene_0" not in path.read_text(), path
    facts = json.loads((tmp_path / "open" / "audit.json").read_text())
    assert any("--no-model" in sentence for sentence in facts["unchecked"])
    keys = {image["image_key"] for group in facts["gallery"] for image in group["images"]}
    hidden = json.loads((tmp_path / "redacted" / "audit.json").read_text())
    assert len({image["image_key"] for group in hidden["gallery"] for image in group["images"]}) == len(keys)


def test_a_run_compared_with_itself_and_with_another(folders: Folders) -> None:
    with open_run(folders[0]) as opened, open_run(folders[1]) as other:
        same = audited(opened, opened, ask_model=False).facts["compare"]
        different = audited(opened, other, ask_model=False).facts["compare"]
    assert same["changed"] == 0
    assert all(row["difference"] == 0 for row in same["metrics"])
    assert same["pairs"] == []
    assert different["images"] == 50
    assert different["changed"] >= 5
    assert len(different["pairs"]) == min(12, different["changed"])
    assert {row["method"] for row in different["metrics"]} == {"gradcam"}
    assert sum(different["answers"][name] for name in ("both", "only_here", "only_there", "neither")) == 50


def weights_that_never_predict_star(path: str, folder: Path) -> str:
    """Write weights of the demonstration's network that cannot predict 'star'."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["head.2.bias"][3] -= 10_000
    changed = folder / "changed.safetensors"
    save_file(tensors, changed)
    return str(changed)
