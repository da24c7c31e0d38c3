"""camatlas doctor: is this machine, and this output folder, fit for a run?"""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import command, leave_after, native_stderr_aside, out
from pipeline.errors import CamatlasError, first_line


@command
def doctor(
    output: Annotated[str | None, typer.Argument(metavar="[OUTPUT]", help="also try this output folder")] = None,
) -> int:
    """Try the engine, the decoders, the model code and the output; exit code 1 when something is unfit."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("libraries", _libraries),
        ("device", _device),
        ("decode", _decode),
        ("explain", _explain),
        ("engine", _engine),
    ]
    if output is not None:
        checks.append(("output", lambda: _output(output)))
    unfit = 0
    for name, check in checks:
        try:
            out.print(f"ok    {name}: {check()}")
        except Exception as error:  # whatever it is, the doctor reports it and goes on
            unfit += 1
            out.print(f"UNFIT {name}: {error if isinstance(error, CamatlasError) else first_line(error)}")
    return 1 if unfit else 0


def _libraries() -> str:
    from pipeline.provenance import code_version, package_versions

    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    return f"camatlas {code_version()}; {versions}"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"no CUDA device; CPU with {torch.get_num_threads()} threads"


def _decode() -> str:
    import io

    from PIL import Image

    from pipeline.decode import DecodeLimits, decode_image

    found = []
    for name in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (64, 48), "#336699").save(file, name)
        image, _ = decode_image(file.getvalue(), DecodeLimits())
        if image.size != (64, 48):
            raise ValueError(f"{name} came back as {image.size}")
        found.append(name)
    return ", ".join(found)


def _explain() -> str:
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
    return f"maps of {tuple(found.maps['gradcam'].shape[1:])} by {', '.join(found.maps)}"


def _engine() -> str:
    from pipeline.cluster import cluster_resources, connected
    from pipeline.provenance import package_versions

    with native_stderr_aside(), connected(None):
        resources = cluster_resources()
    cpus, gpus = (f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
    return f"Ray {package_versions()['ray']} with {cpus} and {gpus}"


def _output(path: str) -> str:
    """Prove that the output publishes whole and only if absent."""
    from pipeline.store import open_store

    store = open_store(path)
    store.check_writable()
    name = f".camatlas-doctor-{uuid.uuid4().hex}"
    existed = Path(path).exists()
    try:
        if not store.publish(name, b"first") or store.publish(name, b"second") or store.read(name) != b"first":
            raise CamatlasError(f"{store.url} does not publish if absent; a run there could lose or double rows")
    finally:
        store.delete(name)
        if not existed and Path(path).is_dir():
            Path(path).rmdir()
    return f"{store.url} publishes whole and only if absent"


if __name__ == "__main__":
    leave_after(lambda: typer.run(doctor))
