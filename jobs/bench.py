"""camatlas bench: speed as ratios, ours and the peers' against the plain model, side by side in one run."""

import json
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.console import command, err, out
from jobs.methods import print_rows
from pipeline.config import ModelConfig, RunConfig, load_config
from pipeline.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.bench.timing import Case
    from pipeline.cams import CamMethod
    from pipeline.model.zoo import LoadedModel

DEFAULT_METHODS: tuple[Any, ...] = (
    "gradcam", "integrated_gradcam", "integrative_cam", "scorecam", {"scorecam": {"clusters": 64}},
    {"iscam": {"clusters": 64}}, {"increment_cam": {"clusters": 64}},
)  # fmt: skip


@command
def bench(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="a run file: its model and methods")] = None,
    against: Annotated[str, typer.Option(help="peers to time beside: names with commas")] = "",
    precision: Annotated[str, typer.Option(help="of our methods: fp32 or bf16")] = "fp32",
    images: Annotated[int, typer.Option("--batch", min=1, help="images that methods are given together")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="rounds; the median is told")] = 3,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key")] = None,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="time the compiled model as well")] = True,
    data: Annotated[bool, typer.Option("--data/--no-data", help="time decoding, committing, queries")] = True,
    chart: Annotated[str | None, typer.Option(help="write a picture: FILE.svg or FILE.png")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything as one JSON object")] = False,
) -> int:
    """Time methods in forward passes of the model; without a run file, ResNet-18 with random weights."""
    from pipeline.bench.peers import PEERS

    peers = [name for name in against.split(",") if name]
    if unknown := [name for name in peers if name not in PEERS]:
        raise ConfigError.one("--against", f"unknown peer '{unknown[0]}'", nearest(unknown[0], PEERS))
    if precision not in ("fp32", "bf16"):
        raise ConfigError.one("--precision", f"unknown precision '{precision}'", "fp32 or bf16")
    asked = load_config(config, settings or ()) if config else None
    found = _measured(asked, peers, precision, images, rounds, compiled=compiled)
    if data:
        found["data"] = _data(asked)
    if chart:
        _draw(chart, found)
    out.say(json.dumps(found)) if as_json else _print(found)
    return 0


def _measured(
    config: RunConfig | None, peers: list[str], precision: str, count: int, rounds: int, *, compiled: bool
) -> dict[str, Any]:
    import torch

    from pipeline.bench.report import case_rows, projection_rows
    from pipeline.bench.timing import time_cases
    from pipeline.cams import build_methods
    from pipeline.model.zoo import load_model

    settings = config.model if config else ModelConfig(name="torchvision/resnet18", weights="random")
    methods = build_methods(config.explain.methods if config else DEFAULT_METHODS)
    loaded = load_model(settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = loaded.preprocess.crop
    pixels_BCHW = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    loaded.model.to(device)
    try:
        cases = _cases(loaded, methods, pixels_BCHW, peers, precision, compiled=compiled)
    except ImportError as error:
        raise ConfigError.one("--against", f"a peer is not installed: {error}", "pip install 'camatlas[dev]'") from None
    timings = time_cases(cases, rounds, err.say)
    return {
        "model": settings.name,
        "layer": loaded.layer,
        "pixels": side,
        "images": count,
        "precision": precision,
        "device": torch.cuda.get_device_name(0) if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "cases": case_rows(timings),
        "imagenet_val": projection_rows(timings),
        "peak_host_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_device_megabytes": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None,
    }


def _cases(
    loaded: "LoadedModel",
    methods: "dict[str, CamMethod]",
    pixels_BCHW: "Tensor",
    peers: list[str],
    precision: Any,  # noqa: ANN401 - checked above
    *,
    compiled: bool,
) -> "list[Case]":
    """Every case, each peer's beside the one of ours that does the same."""
    from pipeline.bench.ours import EIGHT, forward_cases, method_case, road_cases
    from pipeline.bench.peers import peer_cases
    from pipeline.cams import build_methods
    from pipeline.model.memory import kept_freed_memory
    from pipeline.model.probe import Probe

    probe = Probe(loaded.model, loaded.layer, stages=loaded.stages, precision=precision, batch=len(pixels_BCHW))
    with kept_freed_memory():
        probe.choose_batch((pixels_BCHW.shape[2], pixels_BCHW.shape[3]))
    best = probe.scorer.batcher.size
    err.say(f"{loaded.layer}, {pixels_BCHW.shape[2]} px, passes of {best} images")
    cases = forward_cases(loaded.model, pixels_BCHW[:1].expand(best, -1, -1, -1).contiguous(), compiled=compiled)
    cases.append(method_case(probe, "eight gradient methods", build_methods(EIGHT), pixels_BCHW))
    for label, method in methods.items():
        few_BCHW = pixels_BCHW[:1] if _is_costly(method, loaded) else pixels_BCHW
        err.say(f"counting the passes of {label}")
        cases.append(method_case(probe, label, {label: method}, few_BCHW))
    theirs = [case for peer in peers for case in peer_cases(peer, loaded.model, loaded.layer, pixels_BCHW)]
    if theirs:
        cases.extend(road_cases(pixels_BCHW))
    known = {case.name for case in cases}
    cases.extend(case for case in theirs if case.name in known)
    order = {case.name: place for place, case in reversed(list(enumerate(cases)))}
    return sorted(cases, key=lambda case: order[case.name])


def _is_costly(method: "CamMethod", loaded: "LoadedModel") -> bool:
    """Whether one image is enough to fill passes."""
    from pipeline.preflight import net_shape

    return method.cost(net_shape(loaded)).forwards > 32


def _data(config: RunConfig | None) -> list[dict[str, Any]]:
    from pipeline.bench.data import data_rows
    from pipeline.demo.data import write_demo
    from pipeline.model.memory import kept_freed_memory

    with tempfile.TemporaryDirectory() as folder, kept_freed_memory():
        err.say("decoding, committing and asking")
        return data_rows(config or load_config(str(write_demo(Path(folder), scenes=120))))


def _draw(chart: str, found: dict[str, Any]) -> None:
    from pipeline.bench.charts import write_chart

    if not chart.endswith((".svg", ".png")):
        raise ConfigError.one("--chart", f"'{chart}' is no picture", "FILE.svg or FILE.png")
    title = f"{found['model']}, {found['device']}, torch {found['torch']}"
    write_chart(Path(chart), title, found["cases"], found["imagenet_val"])


def _print(found: dict[str, Any]) -> None:
    facts = {name: value for name, value in found.items() if not isinstance(value, list) and value is not None}
    out.say(", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in facts.items()))
    for name in ("cases", "imagenet_val", "data"):
        if found.get(name):
            out.say("")
            print_rows([{key.replace("_", " "): _short(value) for key, value in row.items()} for row in found[name]])
    out.say("\nMedians of rounds in which every case ran in turn; compare within one run only.")


def _short(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(bench)
