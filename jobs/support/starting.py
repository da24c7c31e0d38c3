"""Start what a run needs while its run file is checked: torch is imported in a thread, and Ray starts beside it."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from jobs.support.console import capture_native_stderr
from jobs.support.deadline import STARTING_SECONDS, STOPPING_SECONDS, Deadline
from jobs.support.signals import terminated_by_signal
from pipeline.settings.libraries import import_torchvision
from pipeline.settings.run_file import RunConfig


def import_torch_early(config: RunConfig) -> None:
    """Import torch in another thread, and torchvision if the model is one of its; needs no waiting for.

    Nothing else is imported there, because two threads that import the same packages could find them half imported.
    """
    threading.Thread(target=_import_torch, args=(config.model.name,), name="import torch", daemon=True).start()


def _import_torch(model: str) -> None:
    with suppress(Exception):  # the code that needs it imports it again, and reports the error
        import torch  # noqa: F401

        if model.startswith("torchvision/"):
            import_torchvision()


@contextmanager
def ray_started_early(config: RunConfig) -> Iterator[None]:
    """Start the local Ray of a new run now, for the length of this block.

    A cluster is joined later, when all checks have passed. So is a Ray for a folder that holds a run, where nothing may
    be left to do.
    """
    if config.compute.joins_cluster or Path(config.output.path).exists():
        yield
        return
    from pipeline.run.cluster import connected

    with ExitStack() as ray:
        with Deadline(STARTING_SECONDS), capture_native_stderr():
            ray.enter_context(connected(None))
        try:
            with terminated_by_signal():  # Ray has installed its own handlers
                yield
        finally:
            with Deadline(STOPPING_SECONDS), capture_native_stderr():
                ray.close()


def set_environment(config: RunConfig) -> None:
    """Set the environment variables that Ray and OpenMP read when they are imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not config.compute.joins_cluster:
        # A local head that dies never comes back, so the driver need not wait long for it.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
