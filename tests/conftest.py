"""What several test folders share: where the real data is, small models, and one local Ray for the session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.model.memory import FREED_MEMORY_IS_KEPT

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
if "PYTEST_XDIST_WORKER" in os.environ:  # several of us share the cores
    torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real weights, photographs and bad images; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("CAMATLAS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set CAMATLAS_DATA")
    return folder


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for all tests that need one; four logical CPUs, or reading could starve beside the actors."""
    import ray

    os.environ.update(FREED_MEMORY_IS_KEPT)
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
