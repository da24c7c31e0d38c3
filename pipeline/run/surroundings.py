"""Checks of what surrounds a run, before it starts: the device, the working folder, and where its output lies."""

import os
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from pipeline.data.sources import Shard
from pipeline.errors import ConfigError
from pipeline.settings.precision import check_cpu_precision
from pipeline.settings.run_file import ComputeConfig, RunConfig

_OURS = ("camatlas", "jobs", "pipeline", "schemas")
"""Our top-level packages; workers find modules of the working folder before those that are installed."""


def check_device(compute: ComputeConfig) -> None:
    """Raise ConfigError if a run on this machine asks for a GPU that torch cannot use, or for tf32 without one."""
    if compute.device == "cpu":
        check_cpu_precision(compute.precision)
    needs_gpu = compute.device == "cuda" or compute.precision == "tf32"
    if not needs_gpu or compute.joins_cluster:
        return
    import torch  # late: what is checked here must be told before torch has been imported

    if torch.cuda.is_available():
        return
    if compute.device == "auto":
        check_cpu_precision(compute.precision)
    else:
        raise ConfigError.one(
            "compute.device",
            "torch finds no GPU on this machine",
            "leave it out to run on CPUs, name a cluster in compute.address, or see `camatlas doctor`",
        )


def decoding_here(config: RunConfig) -> tuple[RunConfig, tuple[str, ...]]:
    """Let the readers decode where the device of this machine cannot, and say so in a sentence.

    Raises:
        ConfigError: in a cluster, where only its workers can try, the device may be a CPU.
    """
    compute = config.compute
    if config.data.decode == "readers":
        return config, ()
    if compute.device != "cpu" and compute.joins_cluster:
        if compute.device == "cuda":
            return config, ()
        what = "is device, but workers of the cluster may be CPUs"
        raise ConfigError.one("data.decode", what, "set compute.device: cuda, or leave it out")
    reason = "compute.device is cpu" if compute.device == "cpu" else _undecodable()
    if not reason:
        return config, ()
    data = config.data.model_copy(update={"decode": "readers"})
    note = f"data.decode: device is not possible here ({reason}): the readers decode, and the run is one of `readers`"
    return config.model_copy(update={"data": data}), (note,)


def _undecodable() -> str:
    """Say why the GPU of this machine cannot decode photographs; empty if it can."""
    import torch

    from pipeline.explain.completion import undecodable

    return undecodable("cuda") if torch.cuda.is_available() else "torch finds no GPU on this machine"


def check_working_folder(folder: Path | None = None) -> None:
    """Raise ConfigError if a module in the working folder has the name of one of our packages.

    Args:
        folder: the working folder; None for the current one.
    """
    here = Path.cwd() if folder is None else folder
    home = Path(__file__).resolve().parents[2]
    for name in _OURS:
        spec = PathFinder.find_spec(name, [str(here)])
        origin = spec.origin if spec is not None else None  # a folder without __init__.py has none, and hides nothing
        if origin is not None and Path(origin).resolve().parents[1] != home:
            raise ConfigError.one(
                "working folder",
                f"workers would import '{origin}' instead of camatlas's own package '{name}'",
                "rename it, or start camatlas in another folder",
            )


def check_output(path: str, specs: str | Iterable[str], shards: Iterable[Shard]) -> None:
    """Raise ConfigError if a run folder would change the data that it was made of.

    Args:
        path: the run folder.
        specs: what `data.shards` names.
        shards: the shards found there.
    """
    output = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - links are not followed
    of_images = {shard.location for shard in shards if shard.kind == "folder"}
    for spec in [specs] if isinstance(specs, str) else specs:
        folder = Path(os.path.abspath(Path(spec).expanduser()))  # noqa: PTH100
        inside = output.is_relative_to(folder) if str(folder) in of_images else output == folder
        if "://" not in path and "://" not in spec and inside:
            raise ConfigError.one(
                "output.path",
                f"'{path}' lies in data.shards ('{spec}'), so the run would change its own data and could not resume",
                "choose a folder outside of it",
            )
