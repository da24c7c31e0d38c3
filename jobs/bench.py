"""camatlas bench: time our methods and other libraries' side by side, relative to the model's forward pass."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.methods import print_rows
from jobs.support.console import command, err, leave_after, out
from pipeline.errors import ConfigError, nearest
from pipeline.settings.model import ModelConfig
from pipeline.settings.precision import Precision
from pipeline.settings.run_file import RunConfig, load_config

DEFAULT_MODEL = "torchvision/resnet18"
DEFAULT_METHODS: tuple[Any, ...] = (
    "gradcam", "integrated_gradcam", "integrative_cam", "scorecam",
    {"scorecam": {"clusters": 64, "as": "scorecam_64"}}, {"iscam": {"clusters": 64, "as": "iscam_64"}},
    {"increment_cam": {"clusters": 64, "as": "increment_cam_64"}},
)  # fmt: skip


@command
def bench(
    config: Annotated[
        str | None, typer.Argument(metavar="[CONFIG]", help="run file with the model and methods")
    ] = None,
    model: Annotated[str | None, typer.Option(help="model to time with random weights, without a run file")] = None,
    against: Annotated[str, typer.Option(help="libraries to compare with, separated by commas")] = "",
    precision: Annotated[
        Precision | None, typer.Option(help="precision of our methods (default: that of the run file, or fp32)")
    ] = None,
    images: Annotated[int, typer.Option("--batch", min=1, help="images in one batch")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="timing rounds; the median is reported")] = 3,
    long_rounds: Annotated[int, typer.Option(min=1, help="timing rounds for cases of more than 100 passes")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key of the run file")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="compile the masked passes, as in long runs")
    ] = True,
    data: Annotated[bool, typer.Option("--data/--no-data", help="also time decoding, committing and queries")] = True,
    chart: Annotated[str | None, typer.Option(help="draw a chart into FILE.svg or FILE.png")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    device: Annotated[
        str | None, typer.Option(help="check and measure a device instead: cuda, or cpu to rehearse")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="with --device: for all measurements (default: 450, on a CPU 180)")
    ] = None,
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="with --device: JSON file")] = None,
) -> int:
    """Time our methods and other libraries' side by side, in units of the model's forward pass."""
    if device is not None:
        given = {"CONFIG": config, "--model": model, "--against": against, "--set": settings, "--chart": chart}
        return _bench_device(device, seconds, file, [name for name, value in given.items() if value], as_json=as_json)
    if seconds is not None or file is not None:
        raise ConfigError.one("--seconds" if seconds else "--out", "it needs --device", "--device cuda, or cpu")
    from pipeline.bench.images import bench_images
    from pipeline.bench.measure import Setup, measured
    from pipeline.bench.peers import PEERS
    from pipeline.cams import build_methods
    from pipeline.model.zoo import load_model
    from pipeline.run.preflight import names_for

    peers = [name for name in against.split(",") if name]
    if unknown := [name for name in peers if name not in PEERS]:
        raise ConfigError.one("--against", f"unknown library '{unknown[0]}'", nearest(unknown[0], PEERS))
    if chart and not chart.endswith((".svg", ".png")):
        raise ConfigError.one("--chart", f"'{chart}' is neither an .svg nor a .png file")
    if chart and not Path(chart).absolute().parent.is_dir():
        raise ConfigError.one("--chart", f"there is no folder '{Path(chart).parent}'")
    if config and model:
        raise ConfigError.one("--model", "the run file already names a model", "use --set model.name=...")
    if settings and not config:
        raise ConfigError.one("--set", "it needs a run file", "give one as CONFIG")
    run_config = load_config(config, settings or ()) if config else None
    model_config = run_config.model if run_config else ModelConfig(name=model or DEFAULT_MODEL, weights="random")
    methods = build_methods(run_config.explain.methods if run_config else DEFAULT_METHODS)
    chosen = precision or (run_config.compute.precision if run_config else "fp32")
    loaded = load_model(model_config, names_for(run_config) if run_config else ())
    pixels_BCHW = bench_images(run_config, loaded.preprocess, images, loaded.class_names or ())
    setup = Setup(loaded, methods, tuple(peers), chosen, pixels_BCHW, compiled)
    try:
        results = {"model": model_config.name} | measured(setup, rounds, long_rounds, err.say)
    except ImportError as error:
        raise ConfigError.one(
            "--against", f"a library is not installed: {error}", "pip install 'camatlas[dev]'"
        ) from None
    if data:
        results["data"] = _data(run_config)
    out.say(json.dumps(results)) if as_json else _print(results)
    if chart:
        _draw(chart, results)
    return 0


def _bench_device(device: str, seconds: float | None, file: Path | None, others: list[str], *, as_json: bool) -> int:
    from pipeline.bench.device.needed import check_libraries

    if others:
        raise ConfigError.one(
            others[0], "the measurements of a device have their own networks and methods", "leave it out"
        )
    if file is not None and not file.absolute().parent.is_dir():
        raise ConfigError.one("--out", f"there is no folder '{file.parent}'")
    check_libraries()
    from pipeline.bench.device.sections import measured_device
    from pipeline.bench.device.tables import page

    found = measured_device(device, seconds, file, err.say)
    out.say(json.dumps(found) if as_json else page(found))
    return 0


def _data(config: RunConfig | None) -> list[dict[str, Any]]:
    from pipeline.bench.data import data_rows
    from pipeline.demo.data import write_demo
    from pipeline.model.memory import kept_freed_memory

    with tempfile.TemporaryDirectory() as folder, kept_freed_memory():
        err.say("timing decoding, committing and queries")
        return data_rows(config or load_config(str(write_demo(Path(folder), scenes=120))))


def _draw(chart: str, results: dict[str, Any]) -> None:
    from pipeline.bench.charts import write_chart

    title = f"{results['model']}, {results['device']}, torch {results['torch']}"
    try:
        write_chart(Path(chart), title, results["cases"], results["imagenet_val"])
    except ImportError as error:
        raise ConfigError.one("--chart", f"cannot draw: {error}", "pip install 'camatlas[dev]'") from None


def _print(results: dict[str, Any]) -> None:
    facts = {name: value for name, value in results.items() if not isinstance(value, list) and value is not None}
    out.say(", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in facts.items()))
    for name in ("cases", "imagenet_val", "data"):
        if results.get(name):
            out.say("")
            print_rows([{key.replace("_", " "): _short(value) for key, value in row.items()} for row in results[name]])
    out.say(
        "\nValues are medians over rounds in which the cases take turns. Compare only values of one run. The columns "
        "with 'engine forward' count forward passes of our engine at the precision in the column 'engine'."
    )


def _short(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    leave_after(lambda: typer.run(bench))
