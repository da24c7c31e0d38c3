"""camatlas bench: speed as ratios, ours and the peers' against the plain model, side by side in one run."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.methods import print_rows
from jobs.support.console import command, err, leave_after, out
from pipeline.errors import ConfigError, nearest
from pipeline.settings.run_file import ModelConfig, RunConfig, load_config

Precision = Literal["fp32", "bf16"]

DEFAULT_MODEL = "torchvision/resnet18"
DEFAULT_METHODS: tuple[Any, ...] = (
    "gradcam", "integrated_gradcam", "integrative_cam", "scorecam",
    {"scorecam": {"clusters": 64, "as": "scorecam_64"}}, {"iscam": {"clusters": 64, "as": "iscam_64"}},
    {"increment_cam": {"clusters": 64, "as": "increment_cam_64"}},
)  # fmt: skip


@command
def bench(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="a run file: its model and methods")] = None,
    model: Annotated[str | None, typer.Option(help="without a run file: this model, random weights")] = None,
    against: Annotated[str, typer.Option(help="peers to time beside: names with commas")] = "",
    precision: Annotated[Precision | None, typer.Option(help="of our methods  [default: the run file's]")] = None,
    images: Annotated[int, typer.Option("--batch", min=1, help="images that methods are given together")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="rounds; the median is told")] = 3,
    long_rounds: Annotated[int, typer.Option(min=1, help="rounds of cases of more than 100 passes")] = 1,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="compile masked passes, as long runs do")
    ] = True,
    data: Annotated[bool, typer.Option("--data/--no-data", help="time decoding, committing, queries")] = True,
    chart: Annotated[str | None, typer.Option(help="write a picture: FILE.svg or FILE.png")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything as one JSON object")] = False,
) -> int:
    """Time methods in forward passes of the model, ours and the peers' side by side."""
    from pipeline.bench.images import bench_images
    from pipeline.bench.measure import Setup, measured
    from pipeline.bench.peers import PEERS
    from pipeline.cams import build_methods
    from pipeline.model.zoo import load_model

    peers = [name for name in against.split(",") if name]
    if unknown := [name for name in peers if name not in PEERS]:
        raise ConfigError.one("--against", f"unknown peer '{unknown[0]}'", nearest(unknown[0], PEERS))
    if chart and not chart.endswith((".svg", ".png")):
        raise ConfigError.one("--chart", f"'{chart}' is no picture", "FILE.svg or FILE.png")
    if chart and not Path(chart).absolute().parent.is_dir():
        raise ConfigError.one("--chart", f"there is no folder '{Path(chart).parent}'")
    if config and model:
        raise ConfigError.one("--model", "the run file names the model", "--set model.name=...")
    if settings and not config:
        raise ConfigError.one("--set", "there is no run file to override", "name one")
    asked = load_config(config, settings or ()) if config else None
    which = asked.model if asked else ModelConfig(name=model or DEFAULT_MODEL, weights="random")
    methods = build_methods(asked.explain.methods if asked else DEFAULT_METHODS)
    chosen = precision or (asked.compute.precision if asked else "fp32")
    loaded = load_model(which)
    pixels_BCHW = bench_images(asked, loaded.preprocess, images)
    setup = Setup(loaded, methods, tuple(peers), chosen, pixels_BCHW, compiled)
    try:
        found = {"model": which.name} | measured(setup, rounds, long_rounds, err.say)
    except ImportError as error:
        raise ConfigError.one("--against", f"a peer is not installed: {error}", "pip install 'camatlas[dev]'") from None
    if data:
        found["data"] = _data(asked)
    out.say(json.dumps(found)) if as_json else _print(found)
    if chart:
        _draw(chart, found)
    return 0


def _data(config: RunConfig | None) -> list[dict[str, Any]]:
    from pipeline.bench.data import data_rows
    from pipeline.demo.data import write_demo
    from pipeline.model.memory import kept_freed_memory

    with tempfile.TemporaryDirectory() as folder, kept_freed_memory():
        err.say("decoding, committing and asking")
        return data_rows(config or load_config(str(write_demo(Path(folder), scenes=120))))


def _draw(chart: str, found: dict[str, Any]) -> None:
    from pipeline.bench.charts import write_chart

    title = f"{found['model']}, {found['device']}, torch {found['torch']}"
    try:
        write_chart(Path(chart), title, found["cases"], found["imagenet_val"])
    except ImportError as error:
        raise ConfigError.one("--chart", f"cannot draw: {error}", "pip install 'camatlas[dev]'") from None


def _print(found: dict[str, Any]) -> None:
    facts = {name: value for name, value in found.items() if not isinstance(value, list) and value is not None}
    out.say(", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in facts.items()))
    for name in ("cases", "imagenet_val", "data"):
        if found.get(name):
            out.say("")
            print_rows([{key.replace("_", " "): _short(value) for key, value in row.items()} for row in found[name]])
    out.say(
        "\nMedians of rounds in which the cases ran in turn; compare within one run only. Shares and images are told "
        "in forward passes of the engine that is named: ours, at that precision."
    )


def _short(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    leave_after(lambda: typer.run(bench))
