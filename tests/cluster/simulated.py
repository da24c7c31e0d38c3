"""A Ray cluster of several nodes on this machine: each has a raylet, an object store and a nominal GPU."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

GPU_NODE = {"num_cpus": 2, "num_gpus": 1}
DRIVER = Path(__file__).with_name("driver.py")


@dataclass
class Simulated:
    """A head that does no work, and nodes with two CPUs and a GPU each."""

    cluster: Any

    @property
    def address(self) -> str:
        """Return the address that drivers connect to."""
        return str(self.cluster.address)

    def add_node(self) -> None:
        """Add one node."""
        self.cluster.add_node(**GPU_NODE)

    def lose_node(self, node_id: str) -> None:
        """Kill all processes of a node at once, as the loss of a machine does."""
        (node,) = (node for node in self.cluster.worker_nodes if node.node_id == node_id)
        self.cluster.remove_node(node, allow_graceful=False)

    def lose_head(self) -> None:
        """Kill the head."""
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)

    def actor_nodes(self) -> list[str]:
        """Return the nodes on which an actor of the worker pool is alive, one per actor."""
        table = self.cluster.global_state.actor_table(None, None, None)
        return [
            actor["Address"]["NodeID"]
            for actor in table.values()
            if actor["State"] == "ALIVE" and "MapWorker" in actor["ActorClassName"]
        ]


@contextmanager
def simulated(nodes: int) -> Iterator[Simulated]:
    """Start a head and `nodes` GPU nodes; all end with this block."""
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        machine = Simulated(cluster)
        for _ in range(nodes):
            machine.add_node()
        yield machine
    finally:
        cluster.shutdown()


@contextmanager
def driving(run_file: Path, address: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a driver against a cluster; it ends with this block at the latest."""
    command = [sys.executable, str(DRIVER), str(run_file), "--set", f"compute.address={address}", "--json"]
    timeout = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}  # for a lost head; the default is a minute
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **timeout}
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_actors(
    cluster: Simulated, count: int, process: "subprocess.Popen[str]", seconds: float = 120
) -> list[str]:
    """Wait until `count` actors are alive, and return their nodes."""
    until = time.monotonic() + seconds
    while len(nodes := cluster.actor_nodes()) < count:
        assert process.poll() is None, f"the driver ended with {process.returncode}: {process.communicate()[1][-2000:]}"
        assert time.monotonic() < until, f"{len(nodes)} of {count} actors are alive after {seconds:.0f} s"
        time.sleep(0.2)
    return nodes


def wait_for_parts(run: Path, count: int, process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    """Wait until a run folder holds `count` parts."""
    until = time.monotonic() + seconds
    while len(list(run.glob("part-*.parquet"))) < count:
        assert process.poll() is None, f"the driver ended with {process.returncode}: {process.communicate()[1][-2000:]}"
        assert time.monotonic() < until, f"fewer than {count} parts after {seconds:.0f} s"
        time.sleep(0.1)
