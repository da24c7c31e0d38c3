"""camatlas doctor: is this machine, and this output folder, fit for a run?"""

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
from jobs.support.console import command, leave_after, native_stderr_aside, out
from jobs.support.deadline import STARTING_SECONDS, Deadline
from jobs.support.fitness import Found
from pipeline.errors import CamatlasError, first_line

if TYPE_CHECKING:
    from pipeline.storage.base import Store


@command
def doctor(
    output: Annotated[str | None, typer.Argument(metavar="[OUTPUT]", help="also try this output folder")] = None,
    address: Annotated[str | None, typer.Option(help="also try this Ray cluster (or RAY_ADDRESS)")] = None,
) -> int:
    """Try the engine, the decoders, the model code, the machine and the output; exit code 1 when something is unfit."""
    cluster = address or os.environ.get("RAY_ADDRESS")
    checks: list[tuple[str, Callable[[], Found]]] = [
        ("libraries", fitness.libraries),
        ("device", fitness.device),
        ("decode", _decode),
        ("explain", _explain),
        ("files", fitness.files),
        ("room", lambda: fitness.room(output)),
        ("engine", lambda: _cluster(cluster) if cluster else _engine()),
    ]
    if output is not None:
        checks.append(("output", lambda: _output(output)))
        checks.append(("clock", lambda: _clock(output)))
    unfit = 0
    for name, check in checks:
        try:
            _tell(name, check())
        except Exception as error:  # whatever it is, the doctor reports it and goes on
            unfit += 1
            out.say(f"UNFIT {name}: {error if isinstance(error, CamatlasError) else first_line(error)}")
    return 1 if unfit else 0


def _tell(name: str, found: Found) -> None:
    out.say(f"{'note ' if found.advice else 'ok   '} {name}: {found.what}")
    if found.advice:
        out.say(f"      {found.advice}")


def _decode() -> Found:
    import io

    from PIL import Image

    from pipeline.data.decode import DecodeLimits, decode_image

    found = []
    for name in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (64, 48), "#336699").save(file, name)
        image, _ = decode_image(file.getvalue(), DecodeLimits())
        if image.size != (64, 48):
            raise ValueError(f"{name} came back as {image.size}")
        found.append(name)
    return Found(", ".join(found))


def _explain() -> Found:
    import torch

    import pipeline

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    found = pipeline.explain(model, torch.rand(2, 3, 16, 16), methods=["gradcam", "scorecam"], layer="1")
    return Found(f"maps of {tuple(found.maps['gradcam'].shape[1:])} by {', '.join(found.maps)}")


def _engine() -> Found:
    from pipeline.run.cluster import connected
    from pipeline.run.provenance import package_versions

    with Deadline(STARTING_SECONDS), native_stderr_aside(), connected(None):
        return Found(f"Ray {package_versions()['ray']} starts here, with {_resources()}")


def _cluster(address: str) -> Found:
    """Join a cluster; Ray itself refuses another version of Ray or Python."""
    from pipeline.run.cluster import connected
    from pipeline.run.provenance import package_versions

    with Deadline(STARTING_SECONDS), native_stderr_aside(), connected(address) as dashboard:
        found = fitness.dashboard(dashboard)
        what = f"Ray {package_versions()['ray']} at {address}, with {_resources()}; {found.what}"
        return Found(what, found.advice)


def _resources() -> str:
    from pipeline.run.cluster import cluster_resources

    resources = cluster_resources()
    return " and ".join(f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))


def _output(path: str) -> Found:
    """Prove that the output publishes whole and only if absent."""
    with _probe(path) as (store, name):
        if store.publish(name, b"second") or store.read(name) != b"first":
            raise CamatlasError(f"{store.url} does not publish if absent; a run there could lose or double rows")
        return Found(f"{store.url} publishes whole and only if absent")


def _clock(path: str) -> Found:
    """Compare our clock with that of the place: of its file system, or of the object store."""
    before = time.time()
    with _probe(path) as (store, name):
        modified = next(file.modified for file in store.listed() if file.name == name)
    after = time.time()
    return fitness.clock(modified - min(max(modified, before), after))


@contextmanager
def _probe(path: str) -> Iterator[tuple["Store", str]]:
    """Publish a small object for a moment; a folder that was not there is none afterwards."""
    from pipeline.storage.store import open_store

    store = open_store(path)
    store.check_writable()
    name = f".camatlas-doctor-{uuid.uuid4().hex}"
    made = _missing(Path(path).expanduser()) if "://" not in path else []
    try:
        if not store.publish(name, b"first"):
            raise CamatlasError(f"{store.url} says of a new name that something is there")
        yield store, name
    finally:
        store.delete(name)
        for folder in made:
            folder.rmdir()


def _missing(folder: Path) -> list[Path]:
    """The folders of a path that are not there, the innermost first."""
    return list(itertools.takewhile(lambda one: not one.exists(), (folder, *folder.parents)))


if __name__ == "__main__":
    leave_after(lambda: typer.run(doctor))
