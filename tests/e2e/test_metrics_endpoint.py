"""Prometheus counters of a run, read from Ray's exporter where it is installed (`ray[default]`)."""

import importlib.util
import time
import urllib.request

import pytest
import ray

from pipeline.telemetry.events import Committed, Heartbeat, Usage
from pipeline.telemetry.prometheus import Counters

EVENTS = (Heartbeat(8), Committed(0, 0, 8, 1000, {"label": 2}, True, usage=Usage({"explain": 3.0}, {"forward": 90})))
EXPECTED = {
    "ray_camatlas_images_total": 8,
    "ray_camatlas_chunks_total": 1,
    "ray_camatlas_failures_total": 2,
    "ray_camatlas_forwards_total": 90,
    "ray_camatlas_busy_seconds_total": 3,
    "ray_camatlas_queue": 0,
    "ray_camatlas_busy_share": 1,
}


def exported(run_id: str) -> dict[str, float]:
    """Read the counters of a run from the metrics port of the node."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines if f'run_id="{run_id}"' in line}


@pytest.mark.skipif(importlib.util.find_spec("opentelemetry") is None, reason="ray[default] is not installed")
def test_the_counters_of_a_run_are_exported(local_ray: None) -> None:
    counters = ray.remote(num_cpus=0)(Counters).remote("of-this-test")
    ray.get(counters.note.remote(EVENTS))
    counted: dict[str, float] = {}
    until = time.monotonic() + 60
    while counted.keys() != EXPECTED.keys() and time.monotonic() < until:
        time.sleep(0.5)
        counted = exported("of-this-test")
    assert counted == EXPECTED
