"""Workers on whole GPUs, shares of them and MIG slices; what is said where GPUs are missing. The resources are fake."""

from types import SimpleNamespace
from typing import Any

import pytest
from runfiles import SMALLEST

from jobs.support.watch import Watch
from pipeline.errors import ConfigError
from pipeline.run import cluster, dataflow
from pipeline.run.cluster import missing_gpus, worker_count
from pipeline.run.dataflow import _actor_options, _stall_message
from pipeline.run.ledger import Work
from pipeline.run.placement import Machines, gpus_for, workers_for
from pipeline.settings.run_file import ComputeConfig, parse_config


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The resources of the connected cluster; Ray counts a MIG slice as a GPU."""
    resources = {"CPU": 32.0, "GPU": 2.0}
    monkeypatch.setattr(cluster, "cluster_resources", lambda: resources)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return resources


@pytest.mark.parametrize(
    ("share", "gpus", "workers"),
    [(1.0, 8, 8), (0.5, 8, 16), (0.5, 1, 2), (0.4, 2, 4), (0.1, 1, 10), (0.7, 3, 3), (1 / 3, 2, 6), (0.5, 0, 1)],
)
def test_a_worker_is_never_spread_over_two_gpus(share: float, gpus: int, workers: int) -> None:
    assert workers_for("cuda", 16, gpus, share) == workers
    if gpus:
        assert gpus_for(workers, share) == gpus
        assert gpus_for(workers + 1, share) == gpus + 1


@pytest.mark.parametrize(("share", "workers"), [(1.0, 2), (0.5, 4)])
def test_the_number_of_workers_follows_the_gpus(share: float, workers: int, gpus: dict[str, float]) -> None:
    assert worker_count(ComputeConfig(gpus_per_worker=share)) == workers
    assert worker_count(ComputeConfig(gpus_per_worker=share, workers=5)) == 5
    assert worker_count(ComputeConfig(device="cpu", gpus_per_worker=share)) == 15


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_each_worker_requests_its_share(share: float) -> None:
    assert _actor_options("cuda", 4, share) == {"num_gpus": share}


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "half"])
def test_other_shares_are_refused(wrong: object) -> None:
    _, mistakes = parse_config({**SMALLEST, "compute": {"gpus_per_worker": wrong}})
    assert [mistake.where for mistake in mistakes] == ["compute.gpus_per_worker"]


def test_a_plan_does_not_count_a_shared_gpu_twice() -> None:
    whole = Machines.like_this_one("cuda", "auto", 2, several=False)
    shared = Machines.like_this_one("cuda", "auto", 2, several=False, gpus_per_worker=0.5)
    assert (whole.workers, shared.workers) == (2, 4)
    assert whole.seconds(1000, 1, 9) == shared.seconds(1000, 1, 9)


def test_a_cluster_that_lacks_gpus_is_waited_for(gpus: dict[str, float]) -> None:
    joins: dict[str, Any] = {"device": "cuda", "address": "head:6379"}
    assert missing_gpus(ComputeConfig(**joins, workers=8), 8) == "waiting for 8 GPUs; the cluster has 2"
    assert missing_gpus(ComputeConfig(**joins, gpus_per_worker=0.5), 4) == ""
    assert missing_gpus(ComputeConfig(device="cpu"), 8) == ""
    gpus["GPU"] = 0
    assert missing_gpus(ComputeConfig(**joins), 1) == "waiting for 1 GPU; the cluster has 0"


def test_one_machine_that_lacks_gpus_is_refused(gpus: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"compute\.workers: 8 workers need 8 GPUs, and this machine has 2"):
        missing_gpus(ComputeConfig(device="cuda", workers=8), 8)


@pytest.mark.usefixtures("gpus")
def test_tf32_is_refused_where_workers_compute_on_cpus() -> None:
    with pytest.raises(ConfigError, match=r"compute\.precision: tf32 needs NVIDIA GPUs"):
        missing_gpus(ComputeConfig(device="cpu", precision="tf32", address="head:6379"), 2)


def test_the_wait_is_bounded_and_both_ends_of_it_are_said(
    gpus: dict[str, float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = ComputeConfig(device="cuda", address="head:6379", workers=8)
    watch = Watch(None, None, 8, (), json_events=False)  # type: ignore[arg-type]
    watch.wait_for_gpus(missing_gpus(compute, 8), 3600)
    watch.wait_for_gpus("", 3600)
    (said,) = capsys.readouterr().err.splitlines()
    assert "waiting for 8 GPUs; the cluster has 2" in said
    assert "3600 s without progress (compute.stall_seconds)" in said
    run: Any = SimpleNamespace(
        shards=[SimpleNamespace(ordinal=0, name="a.tar")], stall_seconds=lambda: 3600,
        config=SimpleNamespace(compute=compute),
    )  # fmt: skip
    message = _stall_message(run, [Work("explain", 0, 3)], 8)
    assert "In progress: explain chunk 3 of a.tar. Waiting for 8 GPUs; the cluster has 2. Finished chunks" in message
    gpus["GPU"] = 8
    assert "A worker hangs, or the cluster has no room for one. Finished" in _stall_message(run, [], 8)
    monkeypatch.setattr(dataflow, "missing_gpus", lambda *_: 1 / 0)  # the cluster is gone
    assert "A worker hangs" in _stall_message(run, [], 8)
