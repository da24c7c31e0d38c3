"""Draws the pictures of docs/which-number.md: `python -m pipeline.judge.pictures DEST`.

Every picture is a contact sheet of a few scenes of the network `plain`, with the numbers under the maps.

Legend: (H, W) pixels.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.explain.api import explain
from pipeline.explain.explanations import Explanations, measure
from pipeline.judge.candidates import blurred, scaled, truth_map
from pipeline.judge.measuring import truth_of
from pipeline.maps.pictures import Panel, at_least, contact_sheet, overlay
from pipeline.metrics import build_metrics
from pipeline.truth.shards import Known, Network, open_network, right_scenes

SIDE = 240
_SCENE = 3
"""Scene of the first two pictures: a ring and a square, beside parts that do not count."""
_SCENES = 24
"""Scenes of the leaderboards."""
_METHODS = ("gradcam", "layercam", "integrative_cam", "refine_cam", "eigen_cam", "shuffled_gradcam")


def draw_all(dest: Path) -> list[Path]:
    """Draw the three pictures into a folder and return their paths."""
    network = open_network("plain")
    known, _ = right_scenes(network, _SCENES, seed=1)
    made = {
        "truth-and-two-methods.png": _truth_and_methods(network, known[_SCENE]),
        "a-metric-that-prefers-blur.png": _blur(network, known),
        "two-leaderboards.png": _leaderboards(network, known),
    }
    dest.mkdir(parents=True, exist_ok=True)
    for name, picture in made.items():
        picture.save(dest / name, optimize=True)
    return [dest / name for name in made]


def _truth_and_methods(network: Network, known: Known) -> Image.Image:
    explained = _explained(network, [known], ("integrative_cam", "smoothgrad"))
    maps = {"the truth": torch.from_numpy(truth_map(known)).float()[None]} | dict(explained.maps)
    values = _values(explained, [known], maps, ("mass", "rank"))
    return contact_sheet("What each part is worth, and two maps", [_scene_panel(known), *_panels(known, maps, values)])


def _blur(network: Network, known: Sequence[Known]) -> Image.Image:
    """Show one scene, with the means over all of them: a preference is not seen on a single image."""
    explained = _explained(network, known, ("gradcam",))
    sharp_SHW = explained.heatmap("gradcam")
    soft_SHW = np.stack([blurred(scaled(map_HW), 9) for map_HW in sharp_SHW.double().numpy()])
    maps = {"gradcam": sharp_SHW, "gradcam, blurred": torch.from_numpy(soft_SHW).float()}
    values = _values(explained, known, maps, ("mass", "road", "occlusion_agreement"))
    heading = f"The same map, and the map blurred: means of {len(known)} scenes"
    shown = {name: maps_SHW[_SCENE : _SCENE + 1] for name, maps_SHW in maps.items()}
    return contact_sheet(heading, [_scene_panel(known[_SCENE]), *_panels(known[_SCENE], shown, values)])


def _leaderboards(network: Network, known: Sequence[Known]) -> Image.Image:
    """Rank methods by the truth, by a metric that follows it, and by one that does not."""
    explained = _explained(network, known, _METHODS)
    names = ("mass", "occlusion_agreement", "average_drop")
    values = _values(explained, known, explained.maps, names)
    heading = f"Mean of {len(known)} scenes: ranked by the truth, and by two metrics"
    return contact_sheet(heading, [_bars(name, values[name], lower=name == "average_drop") for name in names])


def _bars(name: str, by_method: Mapping[str, Tensor], *, lower: bool) -> Panel:
    """Draw the means of the methods as bars, best first."""
    means = {method: float(values.nanmean()) for method, values in by_method.items()}
    ordered = sorted(means, key=lambda method: means[method] * (1 if lower else -1))
    largest = max(means.values())
    bars = np.full((24 * len(ordered), SIDE, 3), 255, np.uint8)
    for place, method in enumerate(ordered):
        bars[24 * place + 3 : 24 * place + 21, : max(2, round(SIDE * means[method] / largest))] = (59, 125, 216)
    caption = "\n".join(f"{place}. {method} {means[method]:.2f}" for place, method in enumerate(ordered, 1))
    return Panel(f"{name}, {'lower' if lower else 'higher'} is better", caption, Image.fromarray(bars))


def _scene_panel(known: Known) -> Panel:
    pairs = zip(known.scene.parts, known.values.logit_P, strict=True)
    caption = "\n".join(f"{part.kind} {value:+.2f}" for part, value in pairs)
    return Panel("the scene, and its parts", caption, _large(known))


def _panels(known: Known, maps: Mapping[str, Tensor], values: Mapping[str, Mapping[str, Tensor]]) -> list[Panel]:
    return [
        Panel(
            name,
            "\n".join(f"{metric} {float(by_map[name].nanmean()):.2f}" for metric, by_map in values.items()),
            overlay(_large(known), map_1HW[0].numpy()),
        )
        for name, map_1HW in maps.items()
    ]


def _large(known: Known) -> Image.Image:
    return at_least(Image.fromarray(known.scene.drawn()), SIDE, None)[0]


def _explained(network: Network, known: Sequence[Known], methods: Sequence[str]) -> Explanations:
    return explain(
        network.model,
        network.pixels(np.stack([one.scene.drawn() for one in known])),
        methods=methods,
        targets=[one.scene.label for one in known],
        mean=network.mean,
        std=network.std,
        keys=[one.scene.key for one in known],
    )


def _values(
    explained: Explanations, known: Sequence[Known], maps: Mapping[str, Tensor], metrics: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    return measure(replace(explained, maps=maps), build_metrics(metrics), truth_of(known))


if __name__ == "__main__":
    for path in draw_all(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")
