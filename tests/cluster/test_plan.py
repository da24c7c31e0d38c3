"""Ray's plan is the same on CPUs and on GPUs, so that tests on CPUs cover what runs in production."""

from pathlib import Path
from typing import Any

import pytest
from ray.data._internal.logical.optimizers import get_execution_plan

from pipeline.demo.data import run_file, write_demo
from pipeline.run.dataflow import _graph, _RemoteLedger, explain_on
from pipeline.run.preflight import prepare
from pipeline.settings.run_file import parse_config
from pipeline.storage.parts import progress


@pytest.mark.usefixtures("local_ray")
def test_reading_and_explaining_are_two_stages_on_every_device(tmp_path: Path) -> None:
    """Ray fuses stages that request the same resources; then CPU runs would be fused and GPU runs would not."""
    write_demo(tmp_path, scenes=4, scenes_per_shard=2)
    stages = {device: _stages(tmp_path, device) for device in ("cpu", "cuda")}
    assert stages["cpu"] == stages["cuda"] == ["Input", "ReadWorkUnitSource", "MapBatches(_Actor)"]


def _stages(folder: Path, device: str) -> list[str]:
    fields: Any = run_file(folder)
    fields["compute"] = {"device": device, "workers": 2, "address": "auto"}  # GPUs may be those of a cluster
    run = prepare(parse_config(fields)[0])
    done = progress(run.store)
    graph: Any = _graph(run, done, run.pending(done), 2, explain_on, _RemoteLedger())
    return [operator.name for operator in get_execution_plan(graph._logical_plan)[0].dag.post_order_iter()]
