"""Checks of `camatlas doctor`: libraries, devices, free space, clocks, open files, the dashboard of a cluster.

Each check returns what it found. It adds advice where a run would suffer but not fail, and raises where it would fail.
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
"""Tolerated difference between two clocks, in seconds."""
_LEAST_OUTPUT, _LEAST_TEMPORARY, _LEAST_SHARED = 1 << 30, 4 << 30, 1 << 30  # bytes
_LEAST_FILES = 4096
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Found:
    """Result of a check: what it found, and advice where that may cause trouble."""

    what: str
    advice: str = ""


def libraries() -> Found:
    """Report versions; raises CamatlasError when torch and torchvision are of different builds."""
    from pipeline.run.provenance import code_version, package_versions

    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    _check_torchvision()
    return Found(f"camatlas {code_version()}; {versions}")


def _check_torchvision() -> None:
    """Call an operator that torchvision registers with torch, which fails for incompatible builds."""
    try:
        import torch
        from torchvision.ops import nms

        kept = nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except ModuleNotFoundError as error:
        raise CamatlasError(f"{error.name} is not installed: pip install camatlas") from None
    except (RuntimeError, ImportError, OSError) as error:
        raise CamatlasError(
            f"torch and torchvision are of different builds ({error}); install both in one command, from one index"
        ) from None
    assert kept.tolist() == [0]


def device() -> Found:
    """Report the device that `compute.device: auto` selects, and advise about a GPU that torch cannot use."""
    import torch

    if torch.cuda.is_available():
        name = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        return Found(f"{name}; torch is built for CUDA {torch.version.cuda}")
    what = f"no CUDA device; CPU with {torch.get_num_threads()} threads"
    return Found(what, unused_gpu(driver=_DRIVER.exists(), built_for=torch.version.cuda, env=os.environ))


def unused_gpu(*, driver: bool, built_for: str | None, env: "os._Environ[str] | dict[str, str]") -> str:
    """Explain why torch does not use a GPU of this machine; empty without an NVIDIA driver."""
    if not driver:
        return ""
    if built_for is None:
        return "an NVIDIA driver is installed, but torch was built without CUDA: install the CUDA build of torch"
    if env.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return "an NVIDIA driver is installed, but CUDA_VISIBLE_DEVICES hides its devices: unset it"
    return (
        f"an NVIDIA driver is installed, but torch, built for CUDA {built_for}, finds no device: compare this with the "
        "CUDA version that `nvidia-smi` shows, then update the driver or install another build of torch"
    )


def files() -> Found:
    """Check how many files a process may open; Ray keeps many connections."""
    import resource

    return file_limit(*resource.getrlimit(resource.RLIMIT_NOFILE))


def file_limit(soft: int, hard: int) -> Found:
    """Check limits of open files, where a negative limit means none. Ray raises the soft limit to the hard limit."""
    enough = hard < 0 or hard >= _LEAST_FILES
    advice = (
        f"raise the hard limit to at least {_LEAST_FILES}: LimitNOFILE of a service, --ulimit nofile of a container"
    )
    return Found(f"open files per process: soft limit {_limit(soft)}, hard {_limit(hard)}", "" if enough else advice)


def _limit(limit: int) -> str:
    return "none" if limit < 0 else str(limit)


def free_space(output: str | None, usage: Callable[[Path], int] | None = None) -> Found:
    """Check the free space where a run writes: output, temporary folder, shared memory."""
    free = usage or (lambda path: shutil.disk_usage(path).free)
    places = {
        "temporary": (Path(tempfile.gettempdir()), _LEAST_TEMPORARY, "free space, or set TMPDIR to another folder")
    }
    if output is not None and "://" not in output:
        path = Path(output).expanduser().absolute()
        existing = next(each for each in (path, *path.parents) if each.exists())
        places["output"] = (existing, _LEAST_OUTPUT, "free space; `camatlas plan` estimates the bytes of a run")
    shared = Path("/dev/shm")  # noqa: S108 - only its size is read
    if shared.is_dir():
        advice = "Ray keeps its objects there: start the container with a larger --shm-size"
        places["shared memory"] = (shared, _LEAST_SHARED, advice)
    free_bytes = {name: free(path) for name, (path, _, _) in places.items()}
    what = ", ".join(f"{amount(size, 'B')} in {places[name][0]} ({name})" for name, size in free_bytes.items())
    scarce = [f"{name}: {places[name][2]}" for name, size in free_bytes.items() if size < places[name][1]]
    return Found(f"free: {what}", "; ".join(scarce))


def clock(ahead: float) -> Found:
    """Check by how many seconds the clock of the output is ahead of ours."""
    if abs(ahead) <= CLOCKS_AGREE:
        return Found("agrees with the clock of the output")
    side = "behind" if ahead > 0 else "ahead of"
    return Found(
        f"{duration(abs(ahead))} {side} the clock of the output",
        "synchronise it with NTP: object stores refuse requests from a clock that is 15 minutes off, and "
        "`camatlas status` compares both clocks",
    )


def dashboard(url: str | None) -> Found:
    """Check where a cluster's dashboard listens: anybody who can reach it can run code on the cluster."""
    if not url:
        return Found("no dashboard")
    host = urlsplit(f"//{url}").hostname or ""
    if host == "localhost" or _is_loopback(host):
        return Found(f"dashboard on loopback ({url})")
    return Found(
        f"dashboard at {url}",
        "anybody who can reach it can run code on the cluster: start the head with --dashboard-host 127.0.0.1, and "
        "keep its ports on a trusted network",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
