"""camatlas status: what it prints, and its exit codes."""

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


def asked(path: object, *arguments: str) -> Result:
    return CliRunner().invoke(app, [str(path), *arguments])


def test_a_complete_run_in_words(small_run: RunMaker) -> None:
    answer = asked(small_run.folder)
    assert (answer.exit_code, answer.stderr) == (0, "")
    first, sign, chunks, images, rate, failures = answer.stdout.splitlines()
    assert first == f"run {small_run.manifest.run_id} in {small_run.folder}: complete"
    assert sign.startswith("  last sign of life ")
    assert sign.endswith("+00:00)")
    assert chunks == "  chunks: 3 of 3; shards: 2 finished, 2 begun, 2 in all"
    assert images == "  images: 5 of 5"
    assert rate == "  rate not known"
    assert failures == "  failures: 1 decode/truncated, 1 shard/tar, 1 explain/nonfinite"


def test_the_same_as_json(small_run: RunMaker) -> None:
    answer = json.loads(asked(small_run.folder, "--json").stdout)
    assert answer["state"] == "complete"
    assert answer["run_id"] == small_run.manifest.run_id
    assert answer["shards"] == {"total": 2, "finished": 2, "begun": 2}
    assert answer["chunks"] == {"done": 3, "done_is_exact": True, "total": 3, "total_is_exact": True}
    assert answer["images"] == {"done": 5, "done_is_exact": True, "total": 5, "total_is_exact": True}
    assert answer["failures"] == {"decode/truncated": 1, "shard/tar": 1, "explain/nonfinite": 1}
    assert (answer["failures_parts_left_out"], answer["damaged"], answer["stragglers"]) == (0, {}, [])
    assert answer["images_per_second"]["recent"] is answer["eta_seconds"] is None


def test_a_run_that_goes_on_has_a_rate_and_time_left(tmp_path: Path) -> None:
    run = RunMaker(tmp_path / "run", shards=[f"{n}.tar" for n in range(4)]).owned().publish(FIRST, SECOND)
    now = time.time()
    os.utime(run.folder / FIRST.file, (now - 30, now - 30))
    os.utime(run.folder / SECOND.file, (now - 20, now - 20))
    answer = asked(run.folder).stdout.splitlines()
    assert answer[0].endswith(": going on")
    assert answer[2:4] == [
        "  chunks: 2 of about 8; shards: 1 finished, 1 begun, 4 in all",
        "  images: 3 of about 12",
    ]
    assert answer[4].startswith("  0.03")
    assert answer[4].endswith(" left")


def test_a_young_run_says_what_is_not_known(maker: RunMaker) -> None:
    maker.owned().publish(FIRST)
    answer = asked(maker.folder).stdout
    assert "chunks: 1 so far; how many there will be is not known yet" in answer
    assert "images: 2 so far" in answer
    (maker.folder / FIRST.file).unlink()
    assert "starting, no part yet" in asked(maker.folder).stdout


def test_a_dead_run_says_what_to_do(maker: RunMaker) -> None:
    maker.owned().publish(FIRST)
    for path in maker.folder.iterdir():
        os.utime(path, (0, 0))
    answer = asked(maker.folder).stdout
    assert "nothing new for long: it may have ended; the same `camatlas explain` resumes it" in answer


def test_what_was_left_out_is_told(small_run: RunMaker) -> None:
    told = "\n".join(lines(scan(small_run.store, time.time(), patience=0), "run"))
    assert "images: about 6 so far" in told
    assert "failures: none; counted in 0 of 3 parts, the newest and the last of each shard; --all counts" in told
    assert "the last parts of 2 shards were not looked at" in told


def test_a_clock_that_is_behind_is_told(small_run: RunMaker) -> None:
    told = lines(scan(small_run.store, time.time() - 7200), "run")[1]
    assert told.endswith("the clock of this machine is 120 min behind that of the run folder") or "2.0 h" in told


def test_damage_and_stragglers_are_listed_up_to_a_number(small_run: RunMaker) -> None:
    found = scan(small_run.store, time.time())
    told = lines(replace(found, damaged={f"part-{n}": "torn" for n in range(9)}), "run")
    assert "  damaged: part-0: torn; run `camatlas verify`" in told
    assert told[-1] == "  and 4 more damaged parts"
    chunks = {0: {n: 10.0 * n for n in range(60)}, 1: {0: 0.0, 1: 10.0, 2: 400.0}}
    slow = replace(found, chunks=chunks, footers={PartName(1, 2): replace(small_run.footer(FIRST), chunk=2)})
    assert "  slow: chunk 2 of b.tar took 6 min" in lines(slow, "run")
    assert {one["kind"] for one in to_json(slow, "run")["stragglers"]} == {"slow", "behind"}  # type: ignore[union-attr]
    assert any(line.startswith("  behind: b.tar waits for chunk 3, ") for line in lines(slow, "run"))


def test_names_of_the_data_steer_no_terminal(tmp_path: Path) -> None:
    run = RunMaker(tmp_path / "run", shards=("a\x1b[2J.tar", "b.tar")).complete()
    for number, part in enumerate(PARTS):
        os.utime(run.folder / part.file, (number, number))
    assert "\x1b" not in asked(run.folder).stdout


@pytest.mark.parametrize(("name", "code"), [("nowhere", 2), ("file", 2)])
def test_what_is_no_run_is_refused(tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "file").touch()
    answer = asked(tmp_path / name)
    assert (answer.exit_code, answer.stdout) == (code, "")
    assert "is not a run folder" in answer.stderr


def test_a_damaged_manifest_has_the_code_of_damage(small_run: RunMaker) -> None:
    (small_run.folder / "run.json").write_bytes(b"[]")
    assert asked(small_run.folder).exit_code == 4


def test_a_store_out_of_reach_has_its_own_code(small_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    answer = asked(small_run.folder)
    assert answer.exit_code == 5
    assert "cannot list" in answer.stderr
