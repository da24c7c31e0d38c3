"""The counters of a run as Prometheus reads them, where Ray's own exporter is installed (`ray[default]`)."""

import importlib.util
import time
import urllib.request

import pytest
import ray

from pipeline.telemetry.events import Committed, Heartbeat, Usage
from pipeline.telemetry.prometheus import Counters

NEWS = (Heartbeat(8), Committed(0, 0, 8, 1000, {"label": 2}, True, usage=Usage({"explain": 3.0}, {"forward": 90})))
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
    """What the node exports of a run."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines if f'run_id="{run_id}"' in line}


@pytest.mark.skipif(importlib.util.find_spec("opentelemetry") is None, reason="ray[default] is not installed")
def test_prometheus_sees_the_counters_of_a_run(local_ray: None) -> None:
    counters = ray.remote(num_cpus=0)(Counters).remote("of-this-test")
    ray.get(counters.note.remote(NEWS))
    found: dict[str, float] = {}
    until = time.monotonic() + 60
    while found.keys() != EXPECTED.keys() and time.monotonic() < until:
        time.sleep(0.5)
        found = exported("of-this-test")
    assert found == EXPECTED
