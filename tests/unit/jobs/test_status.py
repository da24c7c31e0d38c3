"""camatlas status: output and exit codes."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from damage import FIRST, SECOND
from handmade import PARTS, RunMaker
from typer.testing import CliRunner, Result

from jobs.status import lines, status, to_json
from pipeline.results.status import status as scan
from pipeline.storage.run_folder import PartName

app = typer.Typer()
app.command()(status)


def run_status(path: object, *arguments: str) -> Result:
    return CliRunner().invoke(app, [str(path), *arguments])


def test_a_complete_run_in_words(small_run: RunMaker) -> None:
    ended = run_status(small_run.folder)
    assert (ended.exit_code, ended.stderr) == (0, "")
    first, activity, chunks, images, rate, failures = ended.stdout.splitlines()
    assert first == f"run {small_run.manifest.run_id} in {small_run.folder}: complete"
    assert activity.startswith("  last activity ")
    assert activity.endswith("+00:00)")
    assert chunks == "  chunks: 3 of 3; shards: 2 finished, 2 started, 2 in total"
    assert images == "  images: 5 of 5"
    assert rate == "  no rate yet"
    assert failures == "  failures: 1 decode/truncated, 1 shard/tar, 1 explain/nonfinite"


def test_the_same_as_json(small_run: RunMaker) -> None:
    answer = json.loads(run_status(small_run.folder, "--json").stdout)
    assert answer["state"] == "complete"
    assert answer["run_id"] == small_run.manifest.run_id
    assert answer["shards"] == {"total": 2, "finished": 2, "begun": 2}
    assert answer["chunks"] == {"done": 3, "done_is_exact": True, "total": 3, "total_is_exact": True}
    assert answer["images"] == {"done": 5, "done_is_exact": True, "total": 5, "total_is_exact": True}
    assert answer["failures"] == {"decode/truncated": 1, "shard/tar": 1, "explain/nonfinite": 1}
    assert (answer["failures_parts_left_out"], answer["damaged"], answer["stragglers"]) == (0, {}, [])
    assert answer["images_per_second"]["recent"] is answer["eta_seconds"] is None


def test_a_running_run_has_a_rate_and_time_left(tmp_path: Path) -> None:
    run = RunMaker(tmp_path / "run", shards=[f"{n}.tar" for n in range(4)]).owned().publish(FIRST, SECOND)
    now = time.time()
    os.utime(run.folder / FIRST.file, (now - 30, now - 30))
    os.utime(run.folder / SECOND.file, (now - 20, now - 20))
    printed = run_status(run.folder).stdout.splitlines()
    assert printed[0].endswith(": running")
    assert printed[2:4] == [
        "  chunks: 2 of about 8; shards: 1 finished, 1 started, 4 in total",
        "  images: 3 of about 12",
    ]
    assert printed[4].startswith("  0.03")
    assert printed[4].endswith(" left")


def test_at_the_start_of_a_run_the_totals_are_unknown(maker: RunMaker) -> None:
    maker.owned().publish(FIRST)
    printed = run_status(maker.folder).stdout
    assert "chunks: 1 so far; the total is not known yet" in printed
    assert "images: 2 so far" in printed
    (maker.folder / FIRST.file).unlink()
    assert "starting, no part yet" in run_status(maker.folder).stdout


def test_a_stopped_run_can_be_resumed(maker: RunMaker) -> None:
    maker.owned().publish(FIRST)
    for path in maker.folder.iterdir():
        os.utime(path, (0, 0))
    first = run_status(maker.folder).stdout.splitlines()[0]
    assert first.endswith(
        "no new parts for a long time, it may have stopped; run the same `camatlas explain` again to resume"
    )


def test_parts_that_were_not_read_are_reported(small_run: RunMaker) -> None:
    printed = "\n".join(lines(scan(small_run.store, time.time(), patience=0), "run"))
    assert "images: about 6 so far" in printed
    assert "failures: none; counted in 0 of 3 parts: the last one of each shard, then the newest; --all" in printed
    assert "2 shards count as unfinished, because their last part was not read" in printed


def test_a_clock_that_is_behind_is_reported(small_run: RunMaker) -> None:
    line = lines(scan(small_run.store, time.time() - 7200), "run")[1]
    assert line.endswith("the clock of this machine is 120 min behind that of the run folder") or "2.0 h" in line


def test_damage_and_stragglers_are_listed_up_to_a_number(small_run: RunMaker) -> None:
    snapshot = scan(small_run.store, time.time())
    printed = lines(replace(snapshot, damaged={f"part-{n}": "torn" for n in range(9)}), "run")
    assert "  damaged: part-0: torn; run `camatlas verify`" in printed
    assert printed[-1] == "  and 4 more damaged parts"
    chunks = {0: {n: 10.0 * n for n in range(60)}, 1: {0: 0.0, 1: 10.0, 2: 400.0}}
    slow = replace(snapshot, chunks=chunks, footers={PartName(1, 2): replace(small_run.footer(FIRST), chunk=2)})
    assert "  slow: chunk 2 of b.tar took 6 min" in lines(slow, "run")
    kinds = {straggler["kind"] for straggler in to_json(slow, "run")["stragglers"]}  # type: ignore[union-attr]
    assert kinds == {"slow", "behind"}
    assert any(line.startswith("  behind: chunk 3 of b.tar is still missing ") for line in lines(slow, "run"))


def test_names_from_the_data_do_not_control_the_terminal(tmp_path: Path) -> None:
    run = RunMaker(tmp_path / "run", shards=("a\x1b[2J.tar", "b.tar")).complete()
    for number, part in enumerate(PARTS):
        os.utime(run.folder / part.file, (number, number))
    assert "\x1b" not in run_status(run.folder).stdout


@pytest.mark.parametrize(("name", "code"), [("nowhere", 2), ("file", 2)])
def test_a_path_that_is_no_run_is_refused(tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "file").touch()
    ended = run_status(tmp_path / name)
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert "is not a run folder" in ended.stderr


def test_a_damaged_manifest_ends_with_4(small_run: RunMaker) -> None:
    (small_run.folder / "run.json").write_bytes(b"[]")
    assert run_status(small_run.folder).exit_code == 4


def test_an_unreachable_store_ends_with_5(small_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    ended = run_status(small_run.folder)
    assert ended.exit_code == 5
    assert "cannot list" in ended.stderr
