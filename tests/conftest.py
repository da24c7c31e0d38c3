"""Fixtures of several test folders: real data, a port for S3, and one local Ray for the session."""

import gc
import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes share the cores; read when numpy is imported
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in the verbs; read when torch is imported

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.s3_environment import environment

from pipeline.run.placement import WORKER_ENVIRONMENT

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """Take the collected tests out of the garbage collector, which would visit them again and again.

    From here on, imported modules are not cached on disk: some tests change a module within one second, and Python
    would take the older code.
    """
    gc.collect()
    gc.freeze()
    sys.dont_write_bytecode = True


def pytest_runtest_setup() -> None:
    """Begin each test with the same random numbers: networks without a seed of their own are the same in every run."""
    torch.manual_seed(0)


def pytest_unconfigure() -> None:
    """Give it back: some libraries complain about objects that are alive at the end."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with real weights, photographs and bad images; skips the test where it is absent."""
    folder = Path(os.environ.get("CAMATLAS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set CAMATLAS_DATA")
    return folder


@pytest.fixture(scope="session")
def s3_port() -> int:
    """Port at which the workers of the local Ray expect S3; a test that needs S3 starts a server there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def local_ray(s3_port: int) -> Iterator[None]:
    """One local Ray for all tests that need it, with four logical CPUs, so that actors leave CPUs for reading."""
    import ray

    os.environ.update(WORKER_ENVIRONMENT)
    with pytest.MonkeyPatch.context() as patch:  # workers inherit the environment of this moment
        for name, value in environment(f"http://127.0.0.1:{s3_port}").items():
            patch.setenv(name, value)
        ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    node: Any = ray._private.worker._global_node
    processes = [info.process for infos in node.all_processes.values() for info in infos]
    yield
    ray.shutdown()
    for process in processes:  # Ray does not wait for all of them, and Python warns about the others
        process.wait(60)
