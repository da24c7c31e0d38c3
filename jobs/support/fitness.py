"""What a machine brings along for a run: libraries that fit, devices, room, clocks, limits, a cluster. For the doctor.

Each check gives what it found, with an advice where a run would suffer but not fail; what is unfit raises.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from jobs.support.console import amount
from jobs.support.progress import duration
from pipeline.errors import CamatlasError

CLOCKS_AGREE = 60.0
"""Seconds that two clocks may be apart."""
_LEAST_OUTPUT, _LEAST_TEMPORARY, _LEAST_SHARED = 1 << 30, 4 << 30, 1 << 30
_LEAST_FILES = 4096
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Found:
    """What a check found, and what to do where that is not as it should be."""

    what: str
    advice: str = ""


def libraries() -> Found:
    """Versions; torch and torchvision must come from one build."""
    from pipeline.run.provenance import code_version, package_versions

    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    _try_pair()
    return Found(f"camatlas {code_version()}; {versions}")


def _try_pair() -> None:
    """Call an operator that torchvision brings for torch; two builds that do not fit have none."""
    try:
        import torch
        from torchvision.ops import nms

        kept = nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (RuntimeError, ImportError, OSError) as error:
        raise CamatlasError(
            f"torch and torchvision do not fit together ({error}); install both at once, from one index"
        ) from None
    assert kept.tolist() == [0]


def device() -> Found:
    """The device that `compute.device: auto` takes; a GPU that torch cannot use is told."""
    import torch

    if torch.cuda.is_available():
        name = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        return Found(f"{name}; torch is built for CUDA {torch.version.cuda}")
    found = f"no CUDA device; CPU with {torch.get_num_threads()} threads"
    return Found(found, unused_gpu(driver=_DRIVER.exists(), built_for=torch.version.cuda, env=os.environ))


def unused_gpu(*, driver: bool, built_for: str | None, env: "os._Environ[str] | dict[str, str]") -> str:
    """Say why a GPU that is there is not used; empty where none is."""
    if not driver:
        return ""
    if built_for is None:
        return "there is an NVIDIA driver, but torch was built without CUDA: install the CUDA build of torch"
    if env.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return "there is an NVIDIA driver, but CUDA_VISIBLE_DEVICES hides its devices: unset it"
    return (
        f"there is an NVIDIA driver, but torch, built for CUDA {built_for}, finds no device: compare with the driver's "
        "CUDA version in `nvidia-smi`, and update the driver or install another build"
    )


def files() -> Found:
    """How many files a process may open; Ray keeps many connections."""
    import resource

    return file_limit(*resource.getrlimit(resource.RLIMIT_NOFILE))


def file_limit(soft: int, hard: int) -> Found:
    """Judge limits of open files; a negative one is none. Ray raises the soft limit to the hard one by itself."""
    enough = hard < 0 or hard >= _LEAST_FILES
    advice = f"allow more, {_LEAST_FILES} at the least: LimitNOFILE of the service, --ulimit nofile of the container"
    return Found(f"a process may open {_files(soft)}, or {_files(hard)} when it asks", "" if enough else advice)


def _files(limit: int) -> str:
    return "any number" if limit < 0 else str(limit)


def room(output: str | None, usage: Callable[[Path], int] | None = None) -> Found:
    """Free bytes where a run writes: output, temporary folder, shared memory."""
    free = usage or (lambda path: shutil.disk_usage(path).free)
    places = {"temporary": (Path(tempfile.gettempdir()), _LEAST_TEMPORARY, "make room, or let TMPDIR lead elsewhere")}
    if output is not None and "://" not in output:
        path = Path(output).expanduser().absolute()
        there = next(each for each in (path, *path.parents) if each.exists())
        places["output"] = (there, _LEAST_OUTPUT, "make room; `camatlas plan` tells the bytes of a run")
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    if shared.is_dir():
        advice = "Ray's objects lie there: start the container with a larger --shm-size"
        places["shared memory"] = (shared, _LEAST_SHARED, advice)
    found = {name: free(path) for name, (path, _, _) in places.items()}
    told = ", ".join(f"{amount(bytes_free, 'B')} in {places[name][0]} ({name})" for name, bytes_free in found.items())
    scarce = [f"{name}: {places[name][2]}" for name, bytes_free in found.items() if bytes_free < places[name][1]]
    return Found(f"free: {told}", "; ".join(scarce))


def clock(ahead: float) -> Found:
    """Judge by how many seconds the clock of a store is ahead of ours."""
    if abs(ahead) <= CLOCKS_AGREE:
        return Found("agrees with that of the output")
    side = "behind" if ahead > 0 else "ahead of"
    return Found(
        f"{duration(abs(ahead))} {side} that of the output",
        "let NTP set it: object stores refuse requests that are a quarter of an hour off, and `camatlas status` "
        "reckons with both clocks",
    )


def dashboard(url: str | None) -> Found:
    """Judge where a cluster's dashboard listens: whoever reaches it can run code."""
    if not url:
        return Found("no dashboard")
    host = urlsplit(f"//{url}").hostname or ""
    if host == "localhost" or _is_loopback(host):
        return Found(f"dashboard on loopback ({url})")
    return Found(
        f"dashboard at {url}",
        "who reaches it can run code on the cluster: start the head with --dashboard-host 127.0.0.1, and keep its "
        "ports on a trusted network",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
