"""Every metric compared with its reference implementation, on random networks, images and boxes."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from nets import ToyNet, images
from oracle.cases import black, blurred
from reference import base
from reference import metrics as ref
from reference import parts as ref_parts
from reference.occlusion import occlusion_agreement
from torch import Tensor, nn

import pipeline
from pipeline.metrics import METRICS, build_metrics, reads_parts
from pipeline.model import noise

SEED = 3
SPECS: list[object] = [
    *(name for name in METRICS if not reads_parts(METRICS[name]())),
    {"average_drop": {"as": "drop_top", "preset": "sise"}},
    {"increase": {"as": "increase_black", "fill": "black"}},
    {"average_gain": {"as": "gain_top", "mask": "top", "share": 0.4}},
    {"insertion": {"as": "insertion_black", "fill": "black", "steps": 7}},
    {"insertion_curve": {"as": "some_curve", "fill": "mean", "steps": 5}},
    {"deletion": {"as": "deletion_logit", "preset": "torch_cam"}},
    {"road": {"as": "road_noisy", "percentiles": [30, 70], "sigma": 0.1}},
    {"infidelity": {"as": "infidelity_gaussian", "perturbation": "gaussian", "preset": "captum"}},
    {"infidelity": {"as": "infidelity_baseline", "perturbation": "noisy_baseline"}},
    {"occlusion_agreement": {"as": "occlusion_coarse", "cells": 3, "score": "probability"}},
    {"pointing_game": {"tolerance": 0, "as": "pointing_exact"}},
    {"pointing_game": {"tolerance": 4, "as": "pointing_near"}},
    {"box_iou": {"as": "box_all", "regions": "all", "threshold": 0.5}},
    {"box_iou_curve": {"as": "v2_curve", "preset": "v2"}},
    {"max_sensitivity": {"as": "sensitivity_large", "samples": 3, "radius": 0.3}},
]
"""Every metric with its defaults, and important variants; those of parts have a file of their own."""
BOXES = [[[2.0, 3.0, 9.0, 12.5]], [[0.0, 0.0, 4.0, 4.0], [10.2, 9.7, 15.9, 14.1]], [[5.0, 5.0, 5.4, 5.4]], None]


@dataclass(frozen=True)
class Row:
    """One image, target and heat map: the input of the references; boxes have at least one whole pixel."""

    model: nn.Module
    image_CHW: Tensor
    target: int
    heatmap_HW: Tensor
    boxes: list[list[float]]
    draw: Callable[[Tensor], Tensor]

    def target_output(self, image_CHW: Tensor) -> float:
        return base.target_output(self.model, image_CHW, self.target)

    @property
    def clean(self) -> float:
        return self.target_output(self.image_CHW)

    def masked_confidence(self, mask_HW: Tensor | None = None) -> float:
        return self.target_output(self.image_CHW * (self.heatmap_HW if mask_HW is None else mask_HW))

    def drop(self) -> float:
        return max(0.0, self.clean - self.masked_confidence()) / self.clean

    def fill(self, kind: str) -> Tensor:
        kinds = {"mean": torch.zeros_like, "black": black, "blur": blurred}
        return kinds[kind](self.image_CHW)

    def curve(self, fill: str, steps: int, *, insert: bool, logit: bool = False) -> list[float]:
        return ref.curve(
            self.model, self.image_CHW, self.target, self.heatmap_HW, self.fill(fill), steps=steps, insert=insert,
            logit=logit,
        )  # fmt: skip

    def road(self, percentiles: tuple[int, ...] = (20, 40, 60, 80), sigma: float = 0.01) -> tuple[float, float]:
        def drawn(percent: float) -> Tensor:
            shape = tuple(self.image_CHW.shape)
            return sigma * next(noise.normal(SEED, [""], f"road {percent / 100}", shape, 1))[0].double()

        return ref.road_means(self.model, self.image_CHW, self.target, self.heatmap_HW, list(percentiles), drawn)

    def coherency(self) -> float:
        return ref.coherency(self.heatmap_HW, self.draw(self.image_CHW * self.heatmap_HW))

    def complexity(self) -> float:
        return sum(self.heatmap_HW.flatten().tolist()) / self.heatmap_HW.numel()

    def infidelity(self, kind: str, *, scale: bool = True) -> float:
        changes = ref.perturbations(kind, self.image_CHW, SEED, 10, 0.2, 0.25)
        return ref.infidelity(self.model, self.image_CHW, self.target, self.heatmap_HW, changes, scale=scale)

    def occlusion(self, cells: int = 8, *, logit: bool = True) -> float:
        return occlusion_agreement(self.model, self.image_CHW, self.target, self.heatmap_HW, cells=cells, logit=logit)

    def sensitivity(self, samples: int, radius: float) -> float:
        drawn = []
        for step in range(samples):
            random = noise.Stream(SEED, "", f"max_sensitivity {step}")
            jitter_CHW = (2 * random.uniform(*self.image_CHW.shape).double() - 1) * radius
            drawn.append(self.draw(self.image_CHW + jitter_CHW))
        return ref.max_sensitivity(self.heatmap_HW, drawn)

    def iou(self, threshold: float, *, all_regions: bool = False) -> float:
        mask = [[value > threshold for value in line] for line in self.heatmap_HW.tolist()]
        return ref.box_iou(mask, self.boxes, all_regions=all_regions)

    def ious(self, *, all_regions: bool = False) -> list[float]:
        levels = [[math.floor(value * 255) for value in line] for line in self.heatmap_HW.float().tolist()]
        return [
            ref.box_iou([[value > t for value in line] for line in levels], self.boxes, all_regions=all_regions)
            for t in range(256)
        ]

    def box_mask(self) -> Tensor:
        height, width = self.heatmap_HW.shape
        cells = [[float(base.inside(self.boxes, i, j)) for j in range(width)] for i in range(height)]
        return torch.tensor(cells, dtype=torch.float64)


REFERENCES: dict[str, Callable[[Row], object]] = {
    "average_drop": Row.drop,
    "drop_top": lambda r: max(0.0, r.clean - r.masked_confidence(ref.top_mask(r.heatmap_HW, 0.15))) / r.clean,
    "increase": lambda r: float(r.masked_confidence() > r.clean),
    "increase_black": lambda r: float(
        ref.masked_confidence(r.model, r.image_CHW, r.target, r.heatmap_HW, r.fill("black")) > r.clean
    ),
    "average_gain": lambda r: ref.average_gain(r.clean, r.masked_confidence()),
    "gain_top": lambda r: ref.average_gain(r.clean, r.masked_confidence(ref.top_mask(r.heatmap_HW, 0.4))),
    "insertion": lambda r: ref.area(r.curve("blur", 20, insert=True)),
    "insertion_black": lambda r: ref.area(r.curve("black", 7, insert=True)),
    "insertion_curve": lambda r: r.curve("blur", 20, insert=True),
    "some_curve": lambda r: r.curve("mean", 5, insert=True),
    "deletion": lambda r: ref.area(r.curve("mean", 20, insert=False)),
    "deletion_logit": lambda r: ref.area(r.curve("mean", 20, insert=False, logit=True)),
    "deletion_curve": lambda r: r.curve("mean", 20, insert=False),
    "road": lambda r: (r.road()[0] - r.road()[1]) / 2,
    "road_noisy": lambda r: (r.road((30, 70), 0.1)[0] - r.road((30, 70), 0.1)[1]) / 2,
    "road_morf": lambda r: r.road()[1] - r.clean,
    "road_lerf": lambda r: r.road()[0] - r.clean,
    "infidelity": lambda r: r.infidelity("square"),
    "infidelity_gaussian": lambda r: r.infidelity("gaussian", scale=False),
    "infidelity_baseline": lambda r: r.infidelity("noisy_baseline"),
    "occlusion_agreement": lambda r: r.occlusion(),
    "occlusion_coarse": lambda r: r.occlusion(cells=3, logit=False),
    "coherency": Row.coherency,
    "complexity": Row.complexity,
    "adcc": lambda r: ref.harmonic(r.coherency(), 1 - r.complexity(), 1 - r.drop()),
    "arcc": lambda r: ref.harmonic(r.coherency(), 1 - r.complexity(), min(1.0, max(0.0, r.road()[0] - r.road()[1]))),
    "pointing_game": lambda r: base.pointing_game(r.heatmap_HW, r.boxes, 15),
    "pointing_exact": lambda r: base.pointing_game(r.heatmap_HW, r.boxes, 0),
    "pointing_near": lambda r: base.pointing_game(r.heatmap_HW, r.boxes, 4),
    "energy_in_box": lambda r: base.energy_in_box(r.heatmap_HW, r.boxes),
    "top_n_in_box": lambda r: ref.top_n_in_box(r.heatmap_HW, r.boxes),
    "miou_top20": lambda r: ref.miou(r.heatmap_HW, r.boxes, 0.2),
    "box_iou": lambda r: r.iou(0.2),
    "box_all": lambda r: r.iou(0.5, all_regions=True),
    "box_iou_curve": Row.ious,
    "v2_curve": lambda r: r.ious(all_regions=True),
    "box_removed_confidence": lambda r: r.masked_confidence(1 - r.box_mask()),
    "box_only_confidence": lambda r: r.masked_confidence(r.box_mask()),
    "sparsity": lambda r: ref.sparsity(r.heatmap_HW),
    "entropy": lambda r: ref.entropy(r.heatmap_HW),
    "energy_outside_centre": lambda r: ref.energy_outside_centre(r.heatmap_HW, 0.5),
    "total_variation": lambda r: ref.total_variation(r.heatmap_HW),
    "max_sensitivity": lambda r: r.sensitivity(10, 0.02),
    "sensitivity_large": lambda r: r.sensitivity(3, 0.3),
}
NEEDS_A_BOX = {
    "pointing_game", "pointing_exact", "pointing_near", "energy_in_box", "top_n_in_box", "miou_top20", "box_iou",
    "box_all", "box_iou_curve", "v2_curve", "box_removed_confidence", "box_only_confidence",
}  # fmt: skip
LOOSE = {
    "max_sensitivity": 1e-5, "coherency": 1e-5, "adcc": 1e-5, "arcc": 1e-5,
    "occlusion_agreement": 1e-4, "occlusion_coarse": 1e-4,
}  # fmt: skip
"""Tolerances, relative to the value or to 1, of metrics that recompute maps, or that solve for many pixels and add up
small losses; the tolerance of the others is 5e-6."""


def test_every_metric_has_a_reference() -> None:
    assert REFERENCES.keys() | ref_parts.REFERENCES.keys() >= METRICS.keys()
    assert set(REFERENCES) == {label for spec in SPECS for label in build_metrics([spec])}


def disagreements(seed: int) -> dict[str, float]:
    """Return each metric's largest difference from its reference, relative to the value or to 1, on one network."""
    worst = dict.fromkeys(REFERENCES, 0.0)
    model, pixels_BCHW = ToyNet(seed), images(seed, count=4)
    explanations = pipeline.explain(model, pixels_BCHW, methods=["gradcam", "scorecam"], layer="features.3", seed=SEED)
    values = pipeline.evaluate(model, pixels_BCHW, explanations, metrics=SPECS, boxes=BOXES)
    precise = copy.deepcopy(model).double()
    layer = precise.get_submodule("features.3")
    for method, map_of in (("gradcam", base.gradcam), ("scorecam", base.scorecam)):
        for b, (image_CHW, target) in enumerate(zip(pixels_BCHW.double(), explanations.targets.tolist(), strict=True)):

            def draw(changed_CHW: Tensor, target: int = target, map_of: Callable[..., Tensor] = map_of) -> Tensor:
                return base.heatmap(map_of(precise, layer, changed_CHW, target), (16, 16))

            heatmap_HW = explanations.heatmap(method)[b].double()
            row = Row(precise, image_CHW, target, heatmap_HW, _whole(BOXES[b] or []), draw)
            for name, reference in REFERENCES.items():
                found = values[name][method][b]
                if name in NEEDS_A_BOX and BOXES[b] is None:
                    assert bool(found.isnan().all()), name
                    continue
                expected = torch.tensor(reference(row), dtype=torch.float64)
                assert found.shape == expected.shape, name
                assert torch.equal(found.isnan(), expected.isnan()), name  # undefined for a map of zeros
                found, expected = found.double().nan_to_num(), expected.nan_to_num()
                error = float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
                worst[name] = max(worst[name], error)
    return worst


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.campaign) for seed in range(1, 200))])
def test_metrics_agree_with_their_references(seed: int) -> None:
    errors = disagreements(seed)
    assert not {name: error for name, error in errors.items() if error > LOOSE.get(name, 5e-6)}


def _whole(boxes: list[list[float]]) -> list[list[float]]:
    """Replace each box smaller than a pixel by the pixel it lies in."""
    grown = []
    for x0, y0, x1, y1 in boxes:
        has_centre = math.ceil(x0 - 0.5) <= math.floor(x1 - 0.5) and math.ceil(y0 - 0.5) <= math.floor(y1 - 0.5)
        x, y = int((x0 + x1) / 2), int((y0 + y1) / 2)
        grown.append([x0, y0, x1, y1] if has_centre else [x, y, x + 1, y + 1])
    return grown


def test_a_drop_is_at_most_one_minus_increase() -> None:
    model, pixels_BCHW = ToyNet(1), images(1, count=16)
    explanations = pipeline.explain(
        model, pixels_BCHW, methods=["gradcam"], layer="features.3", targets=[0, 1, 2, 3] * 4
    )
    values = pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop", "increase"])
    drop_B, increase_B = values["average_drop"]["gradcam"], values["increase"]["gradcam"]
    assert 0 < float(increase_B.sum()) < 16
    assert bool((drop_B <= 1 - increase_B).all())


def test_a_degenerate_map_has_no_energy_and_no_hit() -> None:
    model = ToyNet(0)
    with torch.no_grad():
        for parameter in model.features.parameters():
            parameter.zero_()
    explanations = pipeline.explain(model, images(0), methods=["gradcam"], layer="features.3", layout="channels_first")
    assert bool(explanations.degenerate["gradcam"].all())
    assert float(explanations.heatmap("gradcam").abs().max()) == 0
    boxes = [[[0.0, 0.0, 16.0, 16.0]]] * 3
    values = pipeline.evaluate(
        model, images(0), explanations, metrics=["pointing_game", "energy_in_box", "average_drop"], boxes=boxes
    )
    assert values["pointing_game"]["gradcam"].tolist() == [0, 0, 0]
    assert values["energy_in_box"]["gradcam"].tolist() == [0, 0, 0]
    assert bool(values["average_drop"]["gradcam"].isfinite().all())


def test_boxes_of_the_wrong_number_are_refused() -> None:
    model = ToyNet(0)
    explanations = pipeline.explain(model, images(0), methods=["gradcam"], layer="features.3")
    with pytest.raises(ValueError, match="2 lists of boxes for 3 images"):
        pipeline.evaluate(model, images(0), explanations, metrics=["energy_in_box"], boxes=[None, None])
    with pytest.raises(ValueError, match="other images"):
        pipeline.evaluate(model, images(1), explanations)
    with pytest.raises(ValueError, match="another model"):
        pipeline.evaluate(ToyNet(0), images(0), explanations)
