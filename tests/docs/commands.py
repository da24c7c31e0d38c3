"""Runs the commands of a page: `camatlas` in this process and without Ray, other words by bash."""

import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import jobs.explain
import pipeline.run.cluster
import pipeline.run.dataflow
from jobs.cli import app
from pipeline.explain.explainer import Explainer
from pipeline.run.ledger import Ledger
from pipeline.run.loading import ReadPlan
from pipeline.run.preflight import PreparedRun
from pipeline.run.worker import Worker, WorkerEvent
from pipeline.storage.parts import Progress

ROOT = Path(__file__).resolve().parents[2]
_QUOTED = re.compile(r"'[^']*'|\"[^\"$`]*\"")
_SHELL = re.compile(r"[|<>;&$`*]")


def commands(text: str, *, console: bool) -> Iterator[str]:
    """Yield the commands of a block: lines joined at backslashes and open quotes, without prompts and comments."""
    waiting = ""
    for line in text.splitlines():
        if console and not waiting and not line.startswith("$ "):
            continue  # what the command printed
        waiting += line.removeprefix("$ ") if console and not waiting else line
        if waiting.endswith("\\"):
            waiting = waiting[:-1]
            continue
        try:
            words = shlex.split(waiting, comments=True)
        except ValueError:
            waiting += "\n"
            continue
        if words:
            yield waiting
        waiting = ""
    assert not waiting, f"a quote is not closed: {waiting}"


def run(command: str) -> int:
    """Run a command in the working folder, and return its exit code; what it prints is shown by a failing test."""
    words = shlex.split(command, comments=True)
    if words[0] != "camatlas" or _SHELL.search(_QUOTED.sub("", command.partition(" #")[0])):
        return _by_bash(command)
    ended = CliRunner().invoke(app, words[1:])
    sys.stdout.write(f"$ {command}\n{ended.output}")
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        traceback.print_exception(ended.exception)
    return ended.exit_code


def _by_bash(command: str) -> int:
    """Run a command by bash, where `camatlas` and `python` are those of the tests."""
    folder = Path(".bin").absolute()
    folder.mkdir(exist_ok=True)
    for name, arguments in {"camatlas": "-m camatlas ", "python": ""}.items():
        shim = folder / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n', encoding="utf-8")
        shim.chmod(0o755)
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    script = ["bash", "-euo", "pipefail", "-c", command]
    ended = subprocess.run(script, env=os.environ | paths, capture_output=True, text=True, check=False, timeout=120)
    sys.stdout.write(f"$ {command}\n{ended.stdout}{ended.stderr}")
    return ended.returncode


@contextmanager
def without_ray() -> Iterator[None]:
    """Let verbs explain in this process: reading, explaining and publishing are those of a run, without Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.explain, "ray_started_early", lambda *_: nullcontext())
        patch.setattr(pipeline.run.cluster, "connected", lambda *_: nullcontext())
        patch.setattr(pipeline.run.cluster, "worker_count", lambda *_: 1)
        patch.setattr(pipeline.run.cluster, "cluster_resources", dict)
        patch.setattr(pipeline.run.cluster, "missing_gpus", lambda *_: "")
        patch.setattr(pipeline.run.dataflow, "run_chunks", _explained_here)
        yield


def _explained_here(prepared: PreparedRun, progress: Progress, _: Any) -> Iterator[WorkerEvent]:
    explainer = Explainer(prepared.loaded.model, prepared.explainer_spec("cpu", workers=1))
    worker = Worker(explainer.tables, prepared.manifest.run_id, prepared.store.url, Ledger())
    plan = ReadPlan.of(prepared, unit_bytes=0)
    for shard in prepared.pending(progress):
        for unit in plan.work_units(shard, progress.done.get(shard.ordinal, ())):
            for events in worker.process(unit):
                yield from events
