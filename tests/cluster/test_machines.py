"""A run on machines that only share a network and a bucket; one machine is lost during the run."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster.machines import HEAD, RAY_PORT, Machine, machines, start_ray, start_store
from cluster.simulated import DRIVER
from e2e.runs import Settings, table_of, write_run_file
from faults.checker import check
from faults.harness import finish

from pipeline.demo.data import run_file, write_demo

SCENES, METHODS = 48, 2
COPY = Path(__file__).with_name("copy_objects.py")
GPU_NODE = (f"--address={HEAD}:{RAY_PORT}", "--num-cpus=2", "--num-gpus=1")

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]


def settings(folder: Path, shards: str, output: str) -> Settings:
    """Return a run file for four shards of twelve scenes, in chunks of three."""
    fields: Settings = run_file(folder)
    fields["data"] = {"shards": shards, "chunk_images": 3}
    fields["explain"] = {"methods": ["gradcam", "scorecam"], "targets": "predicted"}
    fields["compute"] = {"workers": 2, "stall_seconds": 300}
    fields["output"] = {"path": output}
    return fields


def test_a_machine_is_lost_in_a_run_from_bucket_to_bucket(tmp_path: Path) -> None:
    write_demo(tmp_path, scenes=SCENES, scenes_per_shard=12)
    alone = write_run_file(settings(tmp_path, f"{tmp_path}/shards", f"{tmp_path}/alone"), tmp_path / "alone.yaml")
    assert finish(alone) == 0
    with machines(5) as (store, head, first, second, third):
        start_store(store)
        store.run(sys.executable, str(COPY), "up", f"{tmp_path}/shards", "s3://atlas/shards")
        fields = settings(tmp_path, "s3://atlas/shards/scenes-{000..003}.tar", "s3://atlas/run")
        write_run_file(fields, head.file("tmp/run.yaml"))
        start_ray(head, "--head", f"--port={RAY_PORT}", "--num-cpus=0", "--include-dashboard=false")
        _wait(head, 1)
        start_ray(first, *GPU_NODE)
        start_ray(second, *GPU_NODE)
        _wait(head, 3)
        address = f"compute.address={HEAD}:{RAY_PORT}"
        driver = head.start(sys.executable, str(DRIVER), "/tmp/run.yaml", "--set", address)
        _wait_for_chunks(head, 4, driver)
        first.lose()
        start_ray(third, *GPU_NODE)
        output = driver.communicate(timeout=500)[0]
        assert driver.returncode == 0, output[-3000:]
        store.run(sys.executable, "-m", "jobs.verify", "s3://atlas/run")
        store.run(sys.executable, str(COPY), "down", "s3://atlas/run", f"{tmp_path}/fetched")
    fetched = tmp_path / "fetched"
    assert check(fetched, images=SCENES, methods=METHODS) == []
    assert table_of(fetched).equals(table_of(tmp_path / "alone"))


def _wait(head: Machine, nodes: int) -> None:
    """Wait until `nodes` nodes have joined."""
    code = (
        f"import ray; ray.init('{HEAD}:{RAY_PORT}', logging_level='ERROR', log_to_driver=False); "
        f"assert sum(node['Alive'] for node in ray.nodes()) >= {nodes}"
    )
    until = time.monotonic() + 180
    while (result := head.tried(sys.executable, "-c", code))[0] != 0:
        assert time.monotonic() < until, result[1][-2000:]
        time.sleep(1)


def _wait_for_chunks(head: Machine, count: int, driver: "subprocess.Popen[str]") -> None:
    """Wait until `camatlas status` reports `count` finished chunks."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        assert driver.poll() is None, driver.communicate()[0][-3000:]
        code, output = head.tried(sys.executable, "-m", "jobs.status", "s3://atlas/run", "--json")
        if code == 0 and json.loads(output.splitlines()[-1])["chunks"]["done"] >= count:
            return
        time.sleep(1)
    raise AssertionError(f"fewer than {count} chunks")
