"""camatlas doctor: check this machine, and optionally an output folder or a Ray cluster, before a run."""

import itertools
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.support import fitness
from jobs.support.console import capture_native_stderr, command, leave_after, out
from jobs.support.deadline import STARTING_SECONDS, Deadline
from jobs.support.fitness import Found
from pipeline.errors import CamatlasError, first_line

if TYPE_CHECKING:
    from pipeline.storage.base import Store


@command
def doctor(
    output: Annotated[str | None, typer.Argument(metavar="[OUTPUT]", help="also check this output folder")] = None,
    address: Annotated[
        str | None, typer.Option(help="check this Ray cluster, not a local Ray (default: RAY_ADDRESS)")
    ] = None,
) -> int:
    """Check libraries, devices, decoders, free space, Ray and the output; exit with code 1 if a check fails."""
    cluster = address or os.environ.get("RAY_ADDRESS")
    checks: list[tuple[str, Callable[[], Found]]] = [
        ("libraries", fitness.libraries),
        ("device", fitness.device),
        ("decode", _decode),
        ("explain", _explain),
        ("files", fitness.files),
        ("space", lambda: fitness.free_space(output)),
        ("ray", lambda: _cluster(cluster) if cluster else _local_ray()),
    ]
    if output is not None:
        checks.append(("output", lambda: _output(output)))
        checks.append(("clock", lambda: _clock(output)))
    failed = 0
    for name, check in checks:
        try:
            _print_result(name, check())
        except Exception as error:  # any failure is reported, and the other checks still run
            failed += 1
            out.say(f"FAIL  {name}: {error if isinstance(error, CamatlasError) else first_line(error)}")
    return 1 if failed else 0


def _print_result(name: str, found: Found) -> None:
    out.say(f"{'note ' if found.advice else 'ok   '} {name}: {found.what}")
    if found.advice:
        out.say(f"      {found.advice}")


def _decode() -> Found:
    import io

    from PIL import Image

    from pipeline.data.decode import decode_image
    from pipeline.data.limits import DecodeLimits

    formats = ("JPEG", "PNG", "WEBP")
    for name in formats:
        file = io.BytesIO()
        Image.new("RGB", (64, 48), "#336699").save(file, name)
        image = decode_image(file.getvalue(), DecodeLimits()).image
        if image.size != (64, 48):
            raise ValueError(f"a {name} of (64, 48) pixels was decoded as {image.size}")
    return Found(", ".join(formats))


def _explain() -> Found:
    import torch

    from pipeline.explain.api import explain

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    maps = explain(model, torch.rand(2, 3, 16, 16), methods=["gradcam", "scorecam"], layer="1").maps
    return Found(f"maps of shape {tuple(maps['gradcam'].shape[1:])} from {', '.join(maps)}")


def _local_ray() -> Found:
    from pipeline.run.cluster import connected
    from pipeline.run.provenance import package_versions

    with Deadline(STARTING_SECONDS), capture_native_stderr(), connected(None):
        return Found(f"Ray {package_versions()['ray']} starts locally, with {_resources()}")


def _cluster(address: str) -> Found:
    """Join a cluster; Ray itself refuses a cluster of another version of Ray or Python."""
    from pipeline.run.cluster import connected
    from pipeline.run.provenance import package_versions

    with Deadline(STARTING_SECONDS), capture_native_stderr(), connected(address) as dashboard:
        found = fitness.dashboard(dashboard)
        what = f"Ray {package_versions()['ray']} at {address}, with {_resources()}; {found.what}"
        return Found(what, found.advice)


def _resources() -> str:
    from pipeline.run.cluster import cluster_resources

    resources = cluster_resources()
    return " and ".join(f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))


def _output(path: str) -> Found:
    """Check that the output never overwrites an existing file."""
    with _probe(path) as (store, name):
        if store.publish(name, b"second") or store.read(name) != b"first":
            raise CamatlasError(f"{store.url} overwrites existing files; a run there could lose or duplicate rows")
        return Found(f"{store.url} can be written, and never overwrites an existing file")


def _clock(path: str) -> Found:
    """Compare our clock with that of the output: of its file system, or of the object store."""
    before = time.time()
    with _probe(path) as (store, name):
        modified = next(file.modified for file in store.listed() if file.name == name)
    after = time.time()
    return fitness.clock(modified - min(max(modified, before), after))


@contextmanager
def _probe(path: str) -> Iterator[tuple["Store", str]]:
    """Publish a small file for the work inside, then remove it and the folders that were created for it."""
    from pipeline.storage.store import open_store

    store = open_store(path)
    store.check_writable()
    name = f".camatlas-doctor-{uuid.uuid4().hex}"
    created = _missing(Path(path).expanduser()) if "://" not in path else []
    try:
        if not store.publish(name, b"first"):
            raise CamatlasError(f"{store.url} claims that the new name {name} already exists")
        yield store, name
    finally:
        store.delete(name)
        for folder in created:
            folder.rmdir()


def _missing(folder: Path) -> list[Path]:
    """Return the folders of a path that do not exist, innermost first."""
    return list(itertools.takewhile(lambda each: not each.exists(), (folder, *folder.parents)))


if __name__ == "__main__":
    leave_after(lambda: typer.run(doctor))
