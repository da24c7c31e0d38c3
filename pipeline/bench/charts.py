"""The chart of a benchmark: the speed of its cases, and the hours that a dataset takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_IMAGES = (100, 1_000, 10_000, 50_000, 1_281_167)
_CHANNELS = (64, 128, 256, 512, 1024, 2048)
_WORKERS = (1, 2, 4, 8, 16, 32, 64)


def write_chart(path: Path, title: str, cases: Sequence[Mapping[str, Any]], plans: Sequence[Mapping[str, Any]]) -> None:
    """Draw rates, and hours over images, channels and workers, into an SVG or PNG file.

    Hours are projected from counted passes and the measured rates of one worker. They are proportional to images, take
    one pass per channel at the rate of the fastest engine, and are divided by the number of workers.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    figure.suptitle(title)
    (rates, images), (channels, workers) = figure.subplots(2, 2)
    _rates(rates, cases)
    for plan in plans:
        hours = plan["hours_of_imagenet_val"]
        images.plot(_IMAGES, [hours * count / 50_000 for count in _IMAGES], marker="o", label=plan["methods"])
        workers.plot(_WORKERS, [hours / count for count in _WORKERS], marker="o", label=plan["methods"])
    engines = [case for case in cases if case["case"] == "forward pass" and case["by"] != "plain model"]
    best = max(engines, key=lambda case: float(case["images_per_second"]))
    forward = best["images_per_second"]
    exact = f"exact, {best['by']}"
    channels.plot(_CHANNELS, [50_000 * count / forward / 3600 for count in _CHANNELS], marker="o", label=exact)
    channels.axhline(50_000 * 64 / forward / 3600, linestyle="--", label="clusters: 64")
    titles = {images: "images", channels: "channels (Score-CAM, ImageNet val)", workers: "equal workers (ImageNet val)"}
    for axes, what in titles.items():
        axes.set(xscale="log", yscale="log", xlabel=what, ylabel="hours")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def _rates(axes: Any, cases: Sequence[Mapping[str, Any]]) -> None:  # noqa: ANN401 - matplotlib is untyped
    names = [f"{case['case']} ({case['by']})" for case in cases]
    ours = ["tab:blue" if str(case["by"]).startswith("camatlas") else "tab:grey" for case in cases]
    axes.barh(names, [case["images_per_second"] for case in cases], color=ours)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="images/s")
    axes.tick_params(labelsize=7)
