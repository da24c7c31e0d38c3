"""Networks of torchvision and timm with random weights, and what is checked of each.

Legend: B images, C colours, (H, W) pixels, K channels, (u, v) grid, N classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn
from torchvision import models

import pipeline
from pipeline.errors import LayerError
from pipeline.model.engine import Engine
from pipeline.model.layout import GridView
from pipeline.model.layout_trial import Trial
from pipeline.model.outputs import SOFTMAX
from pipeline.model.probe import Probe

Shape = tuple[int, int, int]

TOLERANCE = 1e-4
"""Largest difference to the literal computation, relative to the largest number."""


def classifiers() -> list[str]:
    """Return the names of all classifiers of timm and torchvision, with their library."""
    return [
        *(f"torchvision/{name}" for name in models.list_models(module=models)),
        *(f"timm/{name}" for name in timm.list_models()),
    ]


def build(name: str, side: int | None = None, **options: object) -> tuple[nn.Module, Shape]:
    """Build a network in evaluation mode with random weights; return it and the shape (C, H, W) of its images.

    `side` is the height and width of the images, by default those of the library. Parameters that a library starts at
    zero, such as whole heads and the last norms of residual blocks, get random numbers: with zeros, nothing would
    depend on the image.
    """
    library, _, member = name.partition("/")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if library == "torchvision":
            model = models.get_model(member, weights=None, **options)
            shape = (3, *[_SIDES.get(member, 224)] * 2)
        else:
            model = timm.create_model(member, pretrained=False, **options)
            shape = tuple(timm.data.resolve_model_data_config(model)["input_size"])
        for parameter in (each.detach() for each in model.parameters()):
            if parameter.numel() > 1 and float(parameter.abs().max()) < _ZERO and float(parameter.std()) == 0:
                nn.init.normal_(parameter, std=0.02)
    return model.eval(), shape if side is None else (shape[0], side, side)


def settle(model: nn.Module, shape: Shape) -> None:
    """Give batch norms the statistics of noise if the network explodes, so that not rounding decides its logits."""
    pixels_BCHW = noise(shape)
    with torch.no_grad():
        logits_BN = model(pixels_BCHW)
        if isinstance(logits_BN, Tensor) and float(logits_BN.abs().max()) < _EXPLODED:
            return
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.momentum = None
                module.train()
        model(pixels_BCHW)
    model.eval()


_EXPLODED = 100.0
_SIDES = {"inception_v3": 299}
_ZERO = 1e-3


def noise(shape: Shape, images: int = 2) -> Tensor:
    """Return random images (B, C, H, W)."""
    return torch.randn(images, *shape, generator=torch.Generator().manual_seed(1))


def gradcam_difference(model: nn.Module, probe: Probe, pixels_BCHW: Tensor) -> float:
    """Compare Grad-CAM, activations and channel weights with plain autograd through the whole model.

    Gradients are compared as channel weights, their means: rounding moves those of single cells where two cells of a
    max pooling are nearly equal.
    """
    found = probe.layouts(pixels_BCHW)
    explained = pipeline.explain(model, pixels_BCHW, layer=probe.layer, outputs="softmax", layout=found)  # type: ignore[arg-type]
    view = found.by_layer[probe.layer]
    assert isinstance(view, GridView)
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # the model may change it in place

    handle = model.get_submodule(probe.layer).register_forward_hook(keep)
    with torch.enable_grad():
        logits_BN = model(pixels_BCHW.clone().requires_grad_())
    handle.remove()
    logits_BN = logits_BN if isinstance(logits_BN, Tensor) else logits_BN[0]
    score = logits_BN.gather(1, logits_BN.argmax(1, keepdim=True)).sum()
    (grads,) = torch.autograd.grad(score, outputs)
    weights_BK11, acts_BKuv = view.grid(grads).mean((2, 3), keepdim=True), view.grid(outputs[0].detach())
    expected_Buv = (weights_BK11 * acts_BKuv).sum(1).relu()
    evidence = explained.evidence
    return max(
        relative(explained.maps["gradcam"], expected_Buv),
        relative(evidence.grads_BKuv.mean((2, 3), keepdim=True), weights_BK11),
        relative(evidence.acts_BKuv, acts_BKuv),
    )


def engine_difference(model: nn.Module, probe: Probe, pixels_BCHW: Tensor) -> float:
    """Compare the logits of the engine's copy with those of the model, one image at a time."""
    with torch.no_grad():
        engine_BN = Engine(model, "fp32", [probe.layer], compiled=False).logits(pixels_BCHW)
        plain = [model(pixels_1CHW) for pixels_1CHW in pixels_BCHW.split(1)]
    return relative(engine_BN, torch.cat([one if isinstance(one, Tensor) else one[0] for one in plain]))


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest number."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


@dataclass(frozen=True)
class Reading:
    """How the output of a layer was read, beside the reshape of the library itself.

    Attributes:
        layer: name of the layer.
        view: the layout that the trial found; None if it refused.
        is_right: whether the maps are those of the library.
    """

    layer: str
    view: GridView | None
    is_right: bool


def known_readings(model: nn.Module, shape: Shape, probe: Probe) -> Iterator[Reading]:
    """Compare layouts with `forward_intermediates` of timm, which returns maps (B, K, u, v) of its own making.

    Yields one reading for each module whose output holds the same numbers as one of these maps, in any order.
    """
    pixels_BCHW = noise(shape, images=1)
    try:
        with torch.no_grad():
            maps = model.forward_intermediates(pixels_BCHW, intermediates_only=True, output_fmt="NCHW")
    except (AttributeError, NotImplementedError, TypeError, AssertionError, RuntimeError):
        return  # the library knows no reshape
    calls = probe._captured._calls(Trial(model, SOFTMAX, shape))
    outputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({name: output}))
        for name, module in model.named_modules()
        if name in calls
    ]
    with torch.no_grad():
        model(pixels_BCHW)
    for handle in handles:
        handle.remove()
    for name, raw in outputs.items():
        for maps_1Kuv in maps:
            if (
                isinstance(raw, Tensor)
                and maps_1Kuv.shape[2] * maps_1Kuv.shape[3] > 1
                and _same_numbers(raw, maps_1Kuv)
            ):
                view = calls[name].view(shape[1:])
                right = view is None or torch.equal(view.grid(raw), maps_1Kuv)
                yield Reading(name, view, right)
                break


def _same_numbers(raw: Tensor, maps_1Kuv: Tensor) -> bool:
    """Tell whether a layer's output holds the numbers of maps, with or without tokens before the patches."""
    if raw.numel() < maps_1Kuv.numel() or raw.ndim not in (3, 4):
        return False
    if raw.ndim == 3 and raw.shape[2] == maps_1Kuv.shape[1]:
        raw = raw[:, raw.shape[1] - maps_1Kuv[0, 0].numel() :]
    if raw.numel() != maps_1Kuv.numel() or raw.max() != maps_1Kuv.max() or raw.min() != maps_1Kuv.min():
        return False
    return torch.equal(raw.flatten().sort()[0], maps_1Kuv.flatten().sort()[0])


def auto_probe(model: nn.Module, shape: Shape) -> Probe:
    """Return a probe whose layer was found by "auto"; raises LayerError with the reason if there is none."""
    probe = Probe(model, "auto")
    evidence = probe.capture(noise(shape), gradients=True)
    if not bool(evidence.grads_BKuv.any()):
        raise LayerError(f"layer '{probe.layer}' has no gradients")
    return probe
