"""Placement of a run: workers, CPUs left for reading, and the scarcest resource."""

import os

import pytest

from pipeline.run.placement import Machines, workers_for


@pytest.mark.parametrize(
    ("device", "cpus", "gpus", "workers"),
    [("cuda", 16, 4, 4), ("cuda", 16, 0, 1), ("cpu", 4, 0, 1), ("cpu", 16, 1, 7), ("cpu", 2, 0, 1)],
)
def test_number_of_workers_of_a_machine(device: str, cpus: int, gpus: int, workers: int) -> None:
    assert workers_for(device, cpus, gpus) == workers


def test_the_scarcest_resource_decides_the_time() -> None:
    machines = Machines("cpu", workers=2, cpus=8, readers=4)
    assert machines.seconds(model=100, reading=10, shards=9) == 50  # the workers
    assert machines.seconds(model=10, reading=100, shards=9) == 25  # the readers
    assert machines.seconds(model=10, reading=100, shards=2) == 50  # a shard has one reader
    assert Machines("cpu", 2, 2, 2).seconds(model=100, reading=10, shards=9) == 105  # the CPUs
    assert Machines("cuda", 2, 2, 2).seconds(model=100, reading=10, shards=9) == 55


def test_more_workers_than_gpus_need_more_machines_like_this_one() -> None:
    one, eight = (Machines.like_this_one("auto", workers, 2, several=False) for workers in (2, 8))
    assert (one.device, one.cpus, eight.cpus) == ("cuda", os.cpu_count(), 4 * (os.cpu_count() or 1))
    assert eight.readers == 4 * one.readers


def test_more_workers_on_the_cpus_of_one_machine_share_them() -> None:
    many = Machines.like_this_one("cpu", 64, 0, several=False)
    assert many.cpus == os.cpu_count()
    assert Machines.like_this_one("cpu", 64, 0, several=True).cpus > many.cpus
    assert Machines.like_this_one("auto", "auto", 0, several=False).device == "cpu"
