"""A run made before the packages were moved verifies, resumes, and is queried, shown, compared and audited as ever."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from e2e.runs import Settings
from inline import publish_all
from PIL import Image
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.explain import Ended
from pipeline.errors import ConfigError
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.store import open_store
from schemas.explanation import SOURCE_FIELDS
from schemas.manifest import digest_of

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "run_0_1"
LATER = [field.name for field in SOURCE_FIELDS]
"""Columns that later versions write in addition."""
MADE_IN = "/srv/atlas"
"""The folder that the run was made in; its manifest names it."""


def relocated(folder: Path) -> Path:
    """Copy the fixture, and let its manifests name the new place, with a digest that belongs to them."""
    shutil.copytree(FIXTURE, folder)
    for path in folder.glob("*/run.json"):
        fields = json.loads(path.read_text(encoding="utf-8").replace(MADE_IN, str(folder)))
        fields.pop("sha256")
        path.write_text(json.dumps({"sha256": digest_of(fields), **fields}), encoding="utf-8")
    return folder


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return relocated(tmp_path / "older")


def settings_of(older: Path) -> Settings:
    fields: Any = yaml.safe_load((older / "run.yaml").read_text(encoding="utf-8").replace(MADE_IN, str(older)))
    return fields


def rows_of(run: Path) -> pa.Table:
    with open_run(str(run)) as opened:
        return opened.arrow(f"SELECT * EXCLUDE ({', '.join(LATER)}) FROM parts ORDER BY ALL")


def located(run: Path) -> dict[str, bool]:
    """Return of each shard whether its rows say where its images lie."""
    with open_run(str(run)) as opened:
        rows = opened.arrow("SELECT shard, count(sample_offset) AS n FROM images GROUP BY 1").to_pylist()
    return {row["shard"]: row["n"] > 0 for row in rows}


def camatlas(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("name", ["run", "compacted", "quiet"])
def test_it_verifies_where_it_lies_untouched(tmp_path: Path, name: str) -> None:
    shutil.copytree(FIXTURE / name, tmp_path / name)
    findings = verify(open_store(str(tmp_path / name)))
    assert not findings.problems


def test_it_resumes_and_its_rows_are_those_of_today(
    older: Path, explained: Callable[[Settings], Ended], tmp_path: Path
) -> None:
    whole = rows_of(older / "quiet")
    for path in ("part-00001-000.parquet", "_receipts/part-00001-000.json"):
        (older / "quiet" / path).unlink()
    fields = without_noise(settings_of(older))
    fields["output"]["path"] = str(older / "quiet")
    ended = explained(fields)
    assert (ended.images, ended.damages) == (16, 0)
    assert rows_of(older / "quiet").equals(whole)
    assert sorted(located(older / "quiet").values()) == [False, True]
    assert not verify(open_store(str(older / "quiet"))).problems
    publish_all({**fields, "output": {"path": str(tmp_path / "anew")}})
    assert rows_of(tmp_path / "anew").equals(whole)


def test_one_with_random_numbers_is_not_resumed_and_other_methods_have_the_same_maps(
    older: Path, tmp_path: Path
) -> None:
    fields = settings_of(older)
    with pytest.raises(ConfigError, match=r"holds another run \(\w+\); it differs in: methods"):
        publish_all(fields)
    publish_all({**fields, "output": {"path": str(tmp_path / "anew")}})
    before, now = (rows_of(run) for run in (older / "run", tmp_path / "anew"))
    is_control = [pc.equal(rows["method"], "shuffled_gradcam") for rows in (before, now)]
    assert now.filter(pc.invert(is_control[1])).equals(before.filter(pc.invert(is_control[0])))
    assert not now.equals(before)


def without_noise(fields: Settings) -> Settings:
    """Take out the method that draws random numbers, which are those of another generator today."""
    fields["explain"]["methods"].remove("shuffled_gradcam")
    return fields


def test_it_is_queried_with_the_numbers_of_then(older: Path) -> None:
    query = "SELECT method, count(*) AS images, avg(average_drop) AS drop FROM explanations GROUP BY 1 ORDER BY 1"
    for name in ("run", "compacted"):
        with open_run(str(older / name)) as opened:
            rows = opened.arrow(query).to_pylist()
            assert opened.arrow("SELECT count(*) AS n FROM failures").to_pylist() == [{"n": 1}]
            assert opened.maps("method = 'gradcam'").shape == (15, 12, 12)
        assert [(row["method"], row["images"]) for row in rows] == [
            ("gradcam", 15), ("integrated_gradcam", 15), ("iscam", 15), ("shuffled_gradcam", 15),
        ]  # fmt: skip
        drops = [0.5746964134275914, 0.5795607539514701, 0.4765821817020575, 0.7972725123167038]
        assert [row["drop"] for row in rows] == pytest.approx(drops, abs=1e-12)
    sanity = camatlas("query", str(older / "compacted"), "SELECT count(DISTINCT method) AS n FROM sanity", "--csv")
    assert sanity.stdout == "n\n4\n"


def test_it_is_shown(older: Path, tmp_path: Path) -> None:
    shown = camatlas("show", str(older / "run"), "scene_00003", "--out", str(tmp_path / "sheet.png"))
    assert (shown.exit_code, shown.stderr) == (0, "")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 224


def test_its_status_is_that_of_a_complete_run(older: Path) -> None:
    reported = json.loads(camatlas("status", str(older / "run"), "--json").stdout)
    assert (reported["state"], reported["chunks"]["done"]) == ("complete", 4)


def test_it_is_audited_and_compared(older: Path, tmp_path: Path) -> None:
    audited = camatlas("audit", str(older / "run"), "--out", str(tmp_path / "report"))
    compared = camatlas(
        "audit", str(older / "run"), "--compare", str(older / "compacted"), "--out", str(tmp_path / "compared")
    )
    assert (audited.exit_code, compared.exit_code) == (0, 0)
    facts = json.loads((tmp_path / "report" / "audit.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in facts["leaderboard"]["rows"]]
    assert json.loads((tmp_path / "compared" / "audit.json").read_text(encoding="utf-8"))["compare"]
