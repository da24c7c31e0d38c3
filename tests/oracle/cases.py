"""Cases of the oracle tests: every method and variant with its reference implementation."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from nets import GapNet, StagedNet, TinyVit, ToyNet
from reference import activation, attention, base, fusion, gradient, path, score
from reference.increment import increment_cam
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from pipeline.cams import METHODS
from pipeline.cams.region import Rise
from pipeline.model import noise

SEED = 11
BLACK = -torch.tensor([0.485, 0.456, 0.406]).double() / torch.tensor([0.229, 0.224, 0.225]).double()
Layers = list[nn.Module]
Reference = Callable[[nn.Module, Layers, Tensor, int], Tensor]


@dataclass(frozen=True)
class Case:
    """A method as in a run file, its reference implementation, and the networks on which they are compared.

    Attributes:
        tolerance: largest difference, relative to the map's largest magnitude, or to `floor` if that is larger.
        floor: for maps that are small differences of large numbers, which single precision cannot resolve.
        may_disagree: share of the networks in the campaign on which the two may disagree; never in the first twenty.
    """

    spec: dict[str, dict[str, object]]
    reference: Reference
    nets: Callable[[int], nn.Module] = lambda seed: ToyNet(seed, inplace=bool(seed % 2))
    layers: tuple[str, ...] = ("features.3",)
    tolerance: float = 1e-5
    floor: float = 1e-6
    may_disagree: float = 0.0


def case(
    name: str, reference: Callable[..., Tensor], options: dict[str, object] | None = None, **reference_options: object
) -> Case:
    """Build a case for a method that uses only the target layer."""
    return Case({name: options or {}}, lambda m, layers, x, t: reference(m, layers[-1], x, t, **reference_options))


def staged(
    name: str, reference: Callable[..., Tensor], options: dict[str, object] | None = None, **reference_options: object
) -> Case:
    """Build a case for a method that combines stages."""
    return Case(
        {name: options or {}},
        lambda m, layers, x, t: reference(m, layers, x, t, **reference_options),
        lambda seed: StagedNet(seed, smooth=bool(seed % 2)),
        StagedNet.STAGES,
    )


def whole(
    name: str, reference: Callable[..., Tensor], options: dict[str, object] | None = None, **reference_options: object
) -> Case:
    """Build a case for a method that uses the whole model and no layer."""
    return Case(
        {name: options or {}},
        lambda m, layers, x, t: reference(m, x, t, **reference_options),
        lambda seed: StagedNet(seed, smooth=bool(seed % 2)),
        ("stage2",),
    )


def transformer(name: str) -> Case:
    """Build a case for a method that reads attention, on networks that pool in one of three ways."""

    def run(model: nn.Module, _layers: Layers, image_CHW: Tensor, target: int) -> Tensor:
        assert isinstance(model, TinyVit)
        return attention.of_tiny(name)(model, image_CHW, target)

    def net(seed: int) -> nn.Module:
        return TinyVit(seed, pooling=("class", "patches", "both")[seed % 3], fused=bool(seed % 2), spare=2 + seed % 3)

    return Case({name: {}}, run, net, ("blocks.1",))


def black(image_CHW: Tensor) -> Tensor:
    return BLACK.view(3, 1, 1).expand_as(image_CHW)


def blurred(image_CHW: Tensor) -> Tensor:
    kernel = 2 * ((image_CHW.shape[-1] - 1) // 2) + 1
    return functional.gaussian_blur(image_CHW, [kernel, kernel], [50.0, 50.0])


def fields(name: str, shape: tuple[int, ...], samples: int) -> Tensor:
    """Return the noise that camatlas draws for an image without a key."""
    return torch.cat(list(noise.normal(SEED, [""], name, shape, samples))).double()


def on_path(
    name: str, reference: Callable[..., Tensor], options: dict[str, object], **reference_options: object
) -> Case:
    """Build a case for a method with a black baseline image."""

    def run(model: nn.Module, layers: Layers, image_CHW: Tensor, target: int) -> Tensor:
        return reference(model, layers[-1], image_CHW, target, baseline_CHW=black(image_CHW), **reference_options)

    return Case({name: options}, run)


def pixel_path(options: dict[str, object], **reference_options: object) -> Case:
    return Case(
        {"integrated_gradients": options},
        lambda m, layers, x, t: path.integrated_gradients(m, x, t, baseline_CHW=black(x), **reference_options),
    )


def group_cam(m: nn.Module, layers: Layers, x: Tensor, t: int) -> Tensor:
    return score.group_cam(m, layers[-1], x, t, blur_CHW=blurred(x), groups=4)


def rise(m: nn.Module, layers: Layers, x: Tensor, t: int) -> Tensor:
    masks = Rise(num_masks=70, cells=4, keep=0.4).masks((16, 16), SEED, torch.device("cpu"))
    masks_NHW = torch.cat(list(masks)).double()
    return score.rise(m, x, t, masks_NHW=masks_NHW, keep=0.4, grid=8)


def shuffled(m: nn.Module, layer: nn.Module, x: Tensor, t: int) -> Tensor:
    map_uv = base.gradcam(m, layer, x, t)
    order = noise.Stream(SEED, "", "shuffled_gradcam").permutation(map_uv.numel()).tolist()
    return torch.tensor([float(map_uv.flatten()[i]) for i in order], dtype=map_uv.dtype).view_as(map_uv)


def gap(seed: int) -> nn.Module:
    return GapNet(seed)


FIRST: dict[str, object] = {"preset": "first_reading"}
FIRST_INTEGRATIVE: dict[str, object] = {"f": "exp", "maps": "channels", "fusion": "sum", "layer_score": "product"}


def integrative(**options: object) -> Case:
    return staged("integrative_cam", fusion.integrative_cam, options, **options)


def first_integrative(**options: object) -> Case:
    return staged("integrative_cam", fusion.integrative_cam, FIRST | options, **(FIRST_INTEGRATIVE | options))


def increment(**options: object) -> Case:
    return case("increment_cam", increment_cam, options, **options)


g, p, a, s, f = gradient, path, activation, score, fusion
CASES: dict[str, Case] = {
    "gradcam": case("gradcam", base.gradcam),
    "shuffled_gradcam": case("shuffled_gradcam", shuffled),
    "gradcam_pp": case("gradcam_pp", base.gradcam_pp),
    "gradcam_pp official": case("gradcam_pp", base.gradcam_pp, {"preset": "official_code"}, normalise_alpha=True),
    "smooth_gradcam_pp": case(
        "smooth_gradcam_pp", g.smooth_gradcam_pp, {"samples": 5},
        noise_NCHW=fields("smooth_gradcam_pp", (3, 16, 16), 5),
    ),
    "smooth_gradcam_pp printed": case(
        "smooth_gradcam_pp", g.smooth_gradcam_pp, {"samples": 3, "preset": "printed"},
        noise_NCHW=fields("smooth_gradcam_pp", (3, 16, 16), 3), numerator="D1",
    ),
    "xgradcam": case("xgradcam", g.xgradcam),
    "hirescam": case("hirescam", g.hirescam),
    "elementwise_gradcam": case("elementwise_gradcam", g.elementwise_gradcam),
    "layercam": case("layercam", g.layercam),
    "eigen_gradcam": case("eigen_gradcam", g.eigen_gradcam),
    "shapley_cam": case("shapley_cam", g.shapley_cam),
    "shapley_cam logit": case("shapley_cam", g.shapley_cam, {"utility": "logit"}, utility="logit"),
    "finer_cam": case("finer_cam", g.finer_cam),
    "finer_cam one": case("finer_cam", g.finer_cam, {"comparisons": 1, "gamma": 0.5}, comparisons=1, gamma=0.5),
    "fullgrad": whole("fullgrad", g.fullgrad, {"grid": 8}, grid=8, order="minmax_first"),
    "integrated right": on_path("integrated_gradcam", base.integrated_gradcam, {"steps": 7}, steps=7, rule="right"),
    "integrated left": on_path(
        "integrated_gradcam", base.integrated_gradcam, {"steps": 7, "rule": "left"}, steps=7, rule="left"
    ),
    "integrated midpoint": on_path(
        "integrated_gradcam", base.integrated_gradcam, {"steps": 4, "rule": "midpoint"}, steps=4, rule="midpoint"
    ),
    "integrated trapezoid": on_path(
        "integrated_gradcam", base.integrated_gradcam, {"steps": 4, "rule": "trapezoid"}, steps=4, rule="trapezoid"
    ),
    "integrated official": on_path(
        "integrated_gradcam", base.integrated_gradcam, {"steps": 5, "preset": "official_code"},
        steps=5, rule="left", subtract=False,
    ),
    "rsi_gradcam": on_path("rsi_gradcam", p.rsi_gradcam, {"steps": 6}, steps=6),
    "rsi_gradcam logit": on_path("rsi_gradcam", p.rsi_gradcam, {"steps": 3, "score": "logit"}, steps=3, score="logit"),
    "integrated_gradients": pixel_path({"steps": 6, "grid": 8}, steps=6, grid=8),
    "integrated_gradients magnitudes": pixel_path(
        {"steps": 4, "grid": 4, "rule": "trapezoid", "colours": "abs_sum"},
        steps=4, grid=4, rule="trapezoid", channels="abs_sum",
    ),
    "smoothgrad": whole(
        "smoothgrad", p.smoothgrad, {"samples": 4, "grid": 8}, noise_NCHW=fields("smoothgrad", (3, 16, 16), 4), grid=8
    ),
    "cam": Case({"cam": {}}, lambda m, layers, x, t: a.cam(m, layers[-1], m.linear, x, t), gap, ("features.1",)),
    "eigen_cam": case("eigen_cam", a.eigen_cam),
    "kpca_cam": case("kpca_cam", a.kpca_cam),
    "kpca_cam rbf": case("kpca_cam", a.kpca_cam, {"kernel": "rbf"}, kernel="rbf"),
    "fem": case("fem", a.fem),
    "fem low": case("fem", a.fem, {"k_sigma": 0.5}, k_sigma=0.5),
    "scorecam": case("scorecam", base.scorecam),
    "scorecam v2": case("scorecam", base.scorecam, {"preset": "v2"}, softmax=True),
    "scorecam logit": case("scorecam", base.scorecam, {"score": "logit"}, logit=True),
    "iscam": case("iscam", base.iscam, num_steps=10),
    "iscam recurrence": case(
        "iscam", base.iscam, {"num_steps": 4, "schedule": "recurrence"}, num_steps=4, schedule="recurrence"
    ),
    "iscam linear": case("iscam", base.iscam, {"num_steps": 5, "schedule": "linear"}, num_steps=5, schedule="linear"),
    "sscam": case("sscam", s.sscam, {"samples": 3}, noise=fields("sscam", (16, 16), 3)),
    "sscam input": case(
        "sscam", s.sscam, {"samples": 2, "std": 0.5, "noise_on": "input"},
        noise=fields("sscam", (3, 16, 16), 2), std=0.5, noise_on="input",
    ),
    "ablation_cam": case("ablation_cam", s.ablation_cam),
    "ablation_cam abs": case("ablation_cam", s.ablation_cam, {"divide_by_score": "abs"}, divide_by_score="abs"),
    "ablation_cam paper": case("ablation_cam", s.ablation_cam, {"preset": "paper"}, divide_by_score="signed"),
    "ablation_cam closed form": Case(
        {"ablation_cam": {}}, lambda m, layers, x, t: s.ablation_cam(m, layers[-1], x, t), gap, ("features.1",)
    ),
    "group_cam": Case({"group_cam": {"groups": 4}}, group_cam),
    "recipro_cam": case("recipro_cam", s.recipro_cam),
    "recipro_cam cell": case("recipro_cam", s.recipro_cam, {"gaussian": False}, gaussian=False),
    "rise": Case({"rise": {"num_masks": 70, "cells": 4, "keep": 0.4, "grid": 8}}, rise),
    "opti_cam": case("opti_cam", s.opti_cam, {"iterations": 6}, iterations=6),
    "poly_cam": staged("poly_cam", s.poly_cam, variant="both"),
    "poly_cam plus": staged("poly_cam", s.poly_cam, {"variant": "plus"}, variant="plus"),
    "poly_cam minus": staged("poly_cam", s.poly_cam, {"variant": "minus"}, variant="minus"),
    "sise": staged("sise", s.sise),
    "sise strict": staged("sise", s.sise, {"mu": 0.3}, mu=0.3),
    "raw_attention": transformer("raw_attention"),
    "attention_rollout": transformer("attention_rollout"),
    "attention_gradient": transformer("attention_gradient"),
    "legrad": transformer("legrad"),
    "increment": increment(),
    "increment half": increment(lam=0.5, shrink=1),
    "increment logit": increment(score="logit", shrink=4, lam=2.0),
    "increment first": case("increment_cam", increment_cam, FIRST, merge="maps", shrink=None),
    "increment weights": increment(merge="weights", lam=2.0, shrink=None),
    "layercam_fusion": staged("layercam_fusion", f.layercam_fusion),
    "refine_cam": staged("refine_cam", f.refine_cam),
    "integrative": integrative(),
    "integrative none": integrative(bias="none"),
    "integrative sum": integrative(fusion="sum"),
    "integrative exp": integrative(f="exp", layer_score="product"),
    "integrative softplus": integrative(f="softplus", redundancy=0.8),
    "integrative identity": integrative(f="identity", bias="none", layer_score="uniform"),
    "integrative first": first_integrative(),
    "integrative first square": first_integrative(f="square", bias="none"),
    "integrative first softplus": first_integrative(f="softplus"),
    "integrative first sigmoid": first_integrative(f="sigmoid", layer_score="uniform"),
    "integrative first identity": first_integrative(f="identity", bias="none"),
    "integrative first filtered": first_integrative(redundancy=0.8),
    "integrative first guided": first_integrative(fusion="guided", layer_score="contribution"),
}  # fmt: skip

LOOSE = {
    # Sums of terms near 1e-2 that cancel to 1e-4 or less: single precision resolves them to 1e-9.
    "xgradcam": {"floor": 2e-4},
    "shapley_cam": {"floor": 2e-4},
    "finer_cam": {"floor": 2e-4},
    "rsi_gradcam logit": {"floor": 2e-4},
    # Sums along a path, whose first terms are products of differences that cancel; the rounding is the processor's.
    "integrated right": {"floor": 1e-3},
    "integrated left": {"floor": 1e-3},
    "integrated midpoint": {"floor": 1e-3},
    "integrated trapezoid": {"floor": 1e-3},
    "integrated official": {"floor": 1e-3},
    # Weights are differences of confidences or logits near 1, which single precision resolves to 1e-7.
    "scorecam logit": {"floor": 5e-3},
    "ablation_cam": {"floor": 2e-2},
    "ablation_cam abs": {"floor": 2e-2, "tolerance": 5e-5},  # divides by a logit that may be near zero
    "ablation_cam paper": {"floor": 2e-2, "tolerance": 5e-5},
    "group_cam": {"floor": 5e-2},
    "poly_cam minus": {"floor": 0.2},
    # The gate divides differences of scores by the largest one, and single precision resolves them to 1e-7.
    "increment": {"tolerance": 1e-3},
    "increment half": {"tolerance": 1e-3},
    "increment logit": {"tolerance": 1e-3},
    "integrative": {"tolerance": 1e-4},  # sums of positive and negative terms
    "integrative sum": {"tolerance": 1e-4},
    "integrative first sigmoid": {"tolerance": 5e-4},  # the ratio of derivatives has a pole
    # Adam takes full steps even along gradients that are rounding errors, so two roundings diverge.
    "opti_cam": {"may_disagree": 0.04},
    # Rounding moves a value at the edge of a bin to the next one, and Otsu's threshold with it.
    "sise strict": {"may_disagree": 0.005},
}
CASES |= {name: replace(CASES[name], **loose) for name, loose in LOOSE.items()}
assert {name for case in CASES.values() for name in case.spec} <= set(METHODS)
