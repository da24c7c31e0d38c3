"""The command line in subprocesses: results on stdout, messages on stderr, exit codes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from e2e.runs import Settings, table_of, write_run_file
from PIL import Image
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.demo.data import run_file, write_demo
from schemas.manifest import RunManifest

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIA-planted-1",
    "AWS_SECRET_ACCESS_KEY": "planted-2",
    "AWS_SESSION_TOKEN": "planted-3",
    "HF_TOKEN": "planted-4",
    "DATABASE_URL": "https://me:planted-5@host/",
}


def camatlas(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "jobs.cli", *map(str, arguments)]
    env = os.environ | SECRETS
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=env)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """A run of two shards, made by `camatlas explain --json` without a terminal."""
    folder = tmp_path_factory.mktemp("cli")
    write_demo(folder, scenes=20, scenes_per_shard=10)
    fields = run_file(folder)
    fields["explain"] = {"methods": ["gradcam", "scorecam"], "metrics": ["average_drop", "energy_in_box"]}
    write_run_file(fields, folder / "run.yaml")
    return folder, camatlas("explain", folder / "run.yaml", "--json")


def test_explain_prints_json_events(finished: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    folder, ended = finished
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["event"] == "end"
    assert (result["images"], result["explained"], result["rows"], result["failure_rate"]) == (20, 20, 40, 0)
    assert result["path"] == str(folder / "run")
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [event["event"] for event in events[:4]] == ["starting", "start", "labels", "workers"]
    assert {event["event"] for event in events[4:]} == {"progress"}
    assert (events[-1]["images"], events[-1]["chunks"]) == (20, 2)
    assert events[1]["run_id"] == json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))["run_id"]
    assert (events[1]["new"], events[1]["chunks_done"]) == (True, 0)
    assert {"camatlas", "ray", "torch"} <= set(events[1]["versions"])
    account = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))["account"]
    assert account == {name: value for name, value in events[2].items() if name not in ("event", "time")}
    assert (account["inside"]["images"], account["inside"]["labels"], account["inside"]["boxes"]) == (20, 20, 20)
    assert (events[3]["workers"] >= 1, events[3]["device"]) == (True, "cpu")
    session = result["session"]
    assert sum(session["stage_seconds"].values()) == pytest.approx(session["seconds"] * session["workers"], rel=0.01)
    assert min(session["stage_seconds"][stage] for stage in ("start", "evidence", "methods", "metrics")) > 0
    assert min(session["beside_seconds"].values()) > 0
    assert session["bottleneck"]
    assert "planted-" not in ended.stdout + ended.stderr


def test_verify_query_show_audit_and_export_work_on_it(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    folder, _ = finished
    run = folder / "run"
    verified = camatlas("verify", run)
    assert (verified.returncode, verified.stderr.splitlines()[0]) == (
        0,
        "labels    inside the shards: of the first 20 images in 2 of 2 shards, 20 have a label, 20 have boxes; "
        "the others become known while they are read",
    )
    assert verified.stdout.startswith("verified: 20 images = 20 explained + 0 failed; 40 rows in 2 parts")
    assert "gradcam" in camatlas("query", run).stdout
    queried = camatlas("query", run, "SELECT method, count(*) AS n FROM explanations GROUP BY ALL ORDER BY 1", "--csv")
    assert queried.stdout == "method,n\ngradcam,20\nscorecam,20\n"
    shown = camatlas("show", run, "scene_00003", "--out", tmp_path / "sheet.png")
    assert shown.stdout.strip() == str(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 3 * 96
    report = Path(camatlas("audit", run).stdout.strip())
    assert report == run / "_audit" / "report.html"
    exported = camatlas("export", run, tmp_path / "exported", "--to", "fiftyone")
    assert (exported.stdout, exported.stderr) == (f"{tmp_path}/exported\n", "40 explanations; no failures\n")
    assert len(list((tmp_path / "exported" / "data").iterdir())) == 20
    facts = json.loads((run / "_audit" / "audit.json").read_text(encoding="utf-8"))
    assert facts["accuracy"]["overall"]["rows"][0]["images"] == 20
    assert facts["coverage"]["verified"] is True
    written = [path.read_bytes() for path in (*folder.rglob("*.*"), report) if path.is_file()]
    assert not [data for data in written if b"planted-" in data], "secrets of the environment are never written"


def test_the_same_command_again_has_nothing_to_do(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    folder, _ = finished
    again = camatlas("explain", folder / "run.yaml")
    assert again.returncode == 0
    assert again.stdout.strip() == str(folder / "run")
    assert "resuming after 2 chunks" in again.stderr
    status = json.loads(camatlas("status", folder / "run", "--json").stdout)
    assert (status["state"], status["images"]["done"], status["chunks"]["total"]) == ("complete", 20, 2)


def test_a_compacted_run_gives_the_same_results_and_is_resumed(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    folder, _ = finished
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    queries = (("query", "SELECT * FROM parts ORDER BY ALL"), ("agreement",))
    before = [camatlas(verb, run, *arguments, "--json").stdout for verb, *arguments in queries]
    facts = audited(run, tmp_path / "before")
    assert camatlas("compact", run).stdout.startswith("merged 40 rows of 2 parts; files: 1, ")
    assert [camatlas(verb, run, *arguments, "--json").stdout for verb, *arguments in queries] == before
    assert audited(run, tmp_path / "after") == facts
    again = camatlas("explain", folder / "run.yaml", "--out", run)
    assert (again.returncode, again.stdout.strip()) == (0, str(run))
    assert "resuming after 2 chunks" in again.stderr
    assert camatlas("verify", run).returncode == 0


def audited(run: Path, folder: Path) -> dict[str, object]:
    """Return the facts of a report without the means whose last digit depends on the order of rows."""
    assert camatlas("audit", run, "--out", folder).returncode == 0
    facts: dict[str, object] = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return {name: fact for name, fact in facts.items() if name != "classes"}


def damaged_copy(folder: Path, where: Path) -> tuple[Path, Path]:
    """Copy the run and truncate a part; return the copy and the part."""
    damaged = where / "run"
    shutil.copytree(folder / "run", damaged)
    part = damaged / "part-00001-000.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    return damaged, part


def test_damage_is_reported_with_exit_code_4(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    folder, _ = finished
    damaged, part = damaged_copy(folder, tmp_path)
    verified = camatlas("verify", damaged)
    assert verified.returncode == 4
    assert "part-00001-000.parquet" in verified.stderr
    assert verified.stdout.startswith("NOT VERIFIED")
    assert "`camatlas verify --repair` explains it again" in verified.stderr
    repaired = camatlas("verify", damaged, "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert repaired.stdout.startswith("verified: 20 images = 20 explained + 0 failed; 40 rows in 2 parts")
    assert part.read_bytes() == (folder / "run" / part.name).read_bytes()


def test_damage_that_cannot_be_repaired_deletes_nothing(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    damaged, part = damaged_copy(finished[0], tmp_path)
    manifest = RunManifest.from_json((damaged / "run.json").read_bytes())
    manifest.config["data"]["shards"] = [str(tmp_path / "moved.tar")]
    (damaged / "run.json").write_bytes(manifest.to_json())
    refused = camatlas("verify", damaged, "--repair")
    assert refused.returncode == 2
    assert "moved.tar" in refused.stderr
    assert part.exists()


def test_all_mistakes_are_reported_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    fields: Settings = {
        "data": {"shards": [f"{tmp_path}/no-{{0..3}}.tar"], "chunk_image": 3, "boxes": f"{tmp_path}/none.csv"},
        "model": {"name": "torchvision/resnet18", "weights": f"{tmp_path}/none.safetensors", "layer": "layer5"},
        "explain": {"methods": ["grad_cam", {"iscam": {"steps": 3}}], "metrics": ["avrage_drop"]},
        "compute": {"precision": "fp16"},
        "output": {"path": f"{tmp_path}/run"},
    }
    refused = camatlas("explain", write_run_file(fields, tmp_path / "run.yaml"))
    assert refused.returncode == 2
    assert refused.stdout == ""
    for words in (
        "mistakes, nothing was started",
        "data.chunk_image: unknown key (did you mean 'chunk_images'?)",
        "compute.precision:",
        "no-0.tar",
        "none.csv",
        "none.safetensors",
        "layers that work: layer4",
        "unknown name 'grad_cam' (did you mean 'gradcam'?)",
        "unknown parameter 'steps' (did you mean 'num_steps'?)",
        "unknown name 'avrage_drop' (did you mean 'average_drop'?)",
    ):
        assert words in refused.stderr, refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "none.yaml"], "cannot read 'none.yaml'"),
        (["verify", "nowhere"], "is not a run folder"),
        (["query", "nowhere"], "is not a run folder"),
        (["compact", "nowhere"], "is not a run folder"),
        (["audit", "nowhere"], "is not a run folder"),
        (["show", "nowhere", "key"], "is not a run folder"),
        (["export", "nowhere", "dest", "--to", "hf"], "is not a run folder"),
        (["methods", "gradcan"], "did you mean 'gradcam'?"),
        (["metrics", "pointing"], "did you mean 'pointing_game'?"),
        (["pack", "nowhere", "dest"], "matches nothing"),
    ],
)
def test_usage_errors_have_a_message_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_methods_and_metrics_are_listed() -> None:
    listed, page, metrics, energy = (
        CliRunner().invoke(app, words).stdout
        for words in (["methods"], ["methods", "integrated_gradcam"], ["metrics"], ["metrics", "energy_in_box"])
    )
    assert all(name in listed for name in ("gradcam_pp", "integrated_gradcam", "iscam", "20480"))
    assert "ReLU( sum_k a_k(t) D_k(t) )" in page
    assert "official_code" in page
    assert "Average" not in metrics
    assert "energy = sum_{G} E / sum E" in energy


def test_an_empty_folder_and_a_file_as_output_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fields: Settings = {
        "data": {"shards": str(tmp_path / "empty")},
        "model": {"name": "torchvision/squeezenet1_1", "weights": "random"},
        "output": {"path": str(tmp_path / "run.yaml")},
    }
    refused = camatlas("explain", write_run_file(fields, tmp_path / "run.yaml"))
    assert refused.returncode == 2
    assert "contains no image, tar or Parquet file" in refused.stderr
    assert "is not a folder" in refused.stderr
    assert yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8")) == fields


def test_too_many_failures_give_exit_code_3_and_reveal_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, damaged, run = tmp_path / "images", tmp_path / "damaged.tar", tmp_path / "run"
    images.mkdir()
    Image.new("RGB", (40, 30), "#204060").save(images / "fine.png")
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    damaged.write_bytes(b"no tar" * 1000)
    fields: Settings = {
        "data": {"shards": [str(images), str(damaged)]},
        "model": {"name": "torchvision/squeezenet1_1", "weights": "random"},
        "output": {"path": str(run)},
    }
    path = write_run_file(fields, tmp_path / "run.yaml")
    with tempfile.TemporaryDirectory(prefix="ray-") as ray_folder:  # a short path, for the names of Ray's sockets
        monkeypatch.setenv("RAY_TMPDIR", ray_folder)
        ended = camatlas("explain", path)
        logs = [file.read_bytes() for file in Path(ray_folder).rglob("*") if file.is_file()]
    assert ended.returncode == 3
    assert "decode/corrupt" in ended.stderr
    assert "shard/damaged" in ended.stderr
    details = str(table_of(run).select(["image_key", "error_detail"]).to_pydict())
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(logs) > 10
    outputs = [ended.stdout.encode(), ended.stderr.encode(), details.encode(), *written, *logs]
    assert not [data for data in outputs if b"planted-" in data]
    assert camatlas("explain", path, "--max-failure-rate", "1").returncode == 0
