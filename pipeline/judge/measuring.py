"""Measures the scenes of one block: the maps of all methods and all other candidates, by all metrics.

Legend: S scenes, K candidates, Q metrics, (H, W) pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.cams import build_methods
from pipeline.errors import CamatlasError, first_line
from pipeline.explain.api import explain
from pipeline.explain.explanations import Explanations, measure
from pipeline.judge.candidates import CHANGES, TRUTH, random_regions, ruins, scaled
from pipeline.metrics import Parts, Truth, build_metrics
from pipeline.settings.registry import Spec
from pipeline.truth.shards import Known, Network, boxes_of

METHODS: tuple[Spec, ...] = (
    "gradcam", "gradcam_pp", {"smooth_gradcam_pp": {"samples": 8}}, "xgradcam", "hirescam", "layercam",
    "layercam_fusion", "elementwise_gradcam", "eigen_gradcam", "shapley_cam", "finer_cam", "refine_cam", "rsi_gradcam",
    "fullgrad", {"integrated_gradcam": {"steps": 20}}, {"iscam": {"clusters": 16}}, "increment_cam", "integrative_cam",
    "cam", "eigen_cam", "kpca_cam", "fem", "scorecam", {"sscam": {"samples": 8, "clusters": 16}}, "ablation_cam",
    "group_cam", "recipro_cam", {"rise": {"num_masks": 400}}, {"opti_cam": {"iterations": 20}},
    {"poly_cam": {"variant": "plus"}}, "sise", {"integrated_gradients": {"steps": 20}}, {"smoothgrad": {"samples": 8}},
    "raw_attention", "attention_rollout", "attention_gradient", "legrad", "shuffled_gradcam",
)  # fmt: skip
"""All methods, with fewer passes where the default takes hundreds."""

BASES = (TRUTH, "gradcam")
"""Maps that are changed without adding knowledge."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Values of all metrics on all candidates of some scenes.

    Attributes:
        keys: the scenes.
        rules: the rule of each.
        own: the share of positive value in the parts that the rule of the class reads.
        candidates: `method/NAME`, `ruin/NAME`, `change/BASE/NAME`, `region/AREA`.
        metrics: names of the metrics, among them `mass` and `rank`.
        values_SKQ: NaN where a metric does not apply.
    """

    keys: tuple[str, ...]
    rules: tuple[str, ...]
    own: tuple[float, ...]
    candidates: tuple[str, ...]
    metrics: tuple[str, ...]
    values_SKQ: Values


def measured(
    network: Network, known: Sequence[Known], methods: Sequence[Spec], metrics: Sequence[Spec], seed: int
) -> Measured:
    """Measure some scenes."""
    pixels_SCHW = network.pixels(np.stack([one.scene.drawn() for one in known]))
    labels = [one.scene.label for one in known]
    explanations = explain(
        network.model, pixels_SCHW, methods=methods, targets=labels, mean=network.mean, std=network.std, seed=seed,
        keys=[one.scene.key for one in known],
    )  # fmt: skip
    chosen = build_metrics(metrics)
    truth = truth_of(known)
    others = _others(explanations, known, seed)
    own_maps = {name: metric for name, metric in chosen.items() if not metric.redrawn_maps()}
    by_method = measure(explanations, chosen, truth)
    by_other = measure(replace(explanations, maps=others), own_maps, truth)
    columns = [
        torch.stack([*_in_order(by_method[name], explanations.maps), *_of_others(by_other.get(name), others)])
        for name in chosen
    ]
    names = (*(f"method/{name}" for name in explanations.maps), *others)
    values_SKQ = torch.stack(columns, 2).transpose(0, 1).double().numpy()
    return Measured(
        tuple(one.scene.key for one in known), tuple(one.scene.rule for one in known),
        tuple(_own_share(one) for one in known), names, tuple(chosen), values_SKQ,
    )  # fmt: skip


def applicable(network: Network, known: Known, methods: Sequence[Spec]) -> tuple[list[Spec], dict[str, str]]:
    """Return the methods that a network allows, and why it does not allow the others."""
    allowed: list[Spec] = []
    left_out: dict[str, str] = {}
    pixels_1CHW = network.pixels(known.scene.drawn()[None])
    for spec in methods:
        (name,) = build_methods([spec])
        try:
            explain(network.model, pixels_1CHW, methods=[spec], targets=[known.scene.label])
        except CamatlasError as error:
            left_out[name] = first_line(error)
        else:
            allowed.append(spec)
    return allowed, left_out


def truth_of(known: Sequence[Known]) -> Truth:
    """Return the parts with their values, and the boxes around those that count."""
    boxes = [torch.tensor(boxes_of(one)).reshape(-1, 4) for one in known]
    parts = [
        Parts(torch.from_numpy(one.scene.index_HW), torch.from_numpy(one.values.logit_P), one.scene.label)
        for one in known
    ]
    return Truth(boxes, parts=parts)


def _others(explanations: Explanations, known: Sequence[Known], seed: int) -> dict[str, Tensor]:
    """Return the candidates that no method made, (S, H, W)."""
    gradcam_SHW = explanations.heatmap("gradcam").double().numpy()
    by_scene = []
    for one, gradcam_HW in zip(known, gradcam_SHW, strict=True):
        random = np.random.default_rng([seed, *one.scene.key.encode()])
        ruined = ruins(one, random)
        bases = dict(zip(BASES, (ruined[TRUTH], scaled(gradcam_HW)), strict=True))
        regions = random_regions(gradcam_HW.shape, random)
        by_scene.append(
            {f"ruin/{name}": map_HW for name, map_HW in ruined.items()}
            | {f"change/{base}/{name}": change(bases[base]) for base in BASES for name, change in CHANGES.items()}
            | {f"region/{number}": map_HW for number, map_HW in enumerate(regions)}
        )
    return {name: torch.from_numpy(np.stack([maps[name] for maps in by_scene])).float() for name in by_scene[0]}


def _in_order(values: Mapping[str, Tensor], maps: Mapping[str, Tensor]) -> list[Tensor]:
    return [values[name] for name in maps]


def _of_others(values: Mapping[str, Tensor] | None, maps: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the values of maps without a method, (S,); NaN for a metric that computes maps again."""
    if values is None:
        return [torch.full((len(map_SHW),), torch.nan) for map_SHW in maps.values()]
    return _in_order(values, maps)


def _own_share(known: Known) -> float:
    positive_P = known.values.logit_P.clip(0)
    total = float(positive_P.sum())
    return float(positive_P[known.scene.own_P].sum()) / total if total else 0.0
