"""A network whose weights are set by hand, so that the exact value of every part is known in closed form.

Its scenes are black, with white parts of one size that are not rotated. A filter per kind of part responds with exactly
1 at the centre of a part and 0 elsewhere; the sum over the image counts the parts, and a linear layer, with a ReLU
where a rule needs one, turns counts n into logits:

    triangle  n_triangle                              pair      ReLU(n_plus + n_disc - 1)
    either    m - ReLU(m - 1),  m = n_ring + n_square    star      n_star / 2
    chevrons  n_chevron - n_half                      halves    n_half - n_chevron
    stripes   n_stripes                               checks    n_checks
    nothing   1 / 4
"""

from collections import Counter, OrderedDict

import numpy as np
import torch
from torch import nn

from pipeline.truth.rules import CLASSES, RULES, kinds_of
from pipeline.truth.scenes import Part, Scene, near
from pipeline.truth.shapes import KINDS, SIDE, Image, Mask, shape_mask, surface

RADIUS = 8.0
"""Radius of the parts in pixels."""

_HALF = 10
"""The filters reach this many pixels from their centre."""
_WHITE_BLACK = np.array([[1, 1, 1], [0, 0, 0]], np.float32)
_AREA = SIDE * SIDE


def make_hand_scene(index: int, seed: int = 0, rule: str | None = None) -> Scene:
    """Draw the scene with the given index for this network; without a rule, the rules take turns."""
    random = np.random.default_rng([20261201, seed, index])
    chosen = RULES[index % len(RULES)] if rule is None else rule
    black_HW3 = np.zeros((SIDE, SIDE, 3), np.float32)
    while True:
        parts = _placed(kinds_of(chosen, random), random)
        if parts:
            return Scene(f"scene_{index:06d}", chosen, black_HW3, parts)


def hand() -> nn.Module:
    """Build the network; its input is one image in [0, 1] per (B, C, H, W), and its logits are exact."""
    counts, outputs = _rules()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), counts, nn.ReLU(), outputs)
    return nn.Sequential(OrderedDict(features=_detectors(), head=head)).eval()


def linear_hand() -> nn.Module:
    """Build the network without the ReLU of its head: `pair` and `either` are m, and the other logits are the same."""
    linear = nn.Linear(len(KINDS), len(CLASSES))
    weights_NK = torch.zeros(len(CLASSES), len(KINDS))
    for name, factors in (_LINEAR | _JOINED).items():
        for kind, factor in factors.items():
            weights_NK[CLASSES.index(name), KINDS.index(kind)] = factor * _AREA
    bias_N = torch.zeros(len(CLASSES))
    bias_N[CLASSES.index("nothing")] = 0.25
    _set(linear, weights_NK, bias_N)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    return nn.Sequential(OrderedDict(features=_detectors(), head=head)).eval()


def closed_form(scene: Scene) -> list[float]:
    """Return the exact value of each part of a scene for its class, from the formulas of the module.

    One, repeated and contrary parts are additive, so each is worth its own weight. Of two parts that need each other,
    and of two of which one would do, each is worth one half; one of two that stands alone is worth one.
    """
    name = CLASSES[scene.label]
    count = Counter(part.kind for part in scene.parts)
    if name in _LINEAR:
        return [_LINEAR[name].get(part.kind, 0.0) for part in scene.parts]
    share = 1 / sum(count[kind] for kind in _JOINED[name])
    return [share if part.kind in _JOINED[name] else 0.0 for part in scene.parts]


_LINEAR: dict[str, dict[str, float]] = {
    "triangle": {"triangle": 1.0},
    "star": {"star": 0.5},
    "chevrons": {"chevron": 1.0, "half": -1.0},
    "halves": {"chevron": -1.0, "half": 1.0},
    "stripes": {"stripes": 1.0},
    "checks": {"checks": 1.0},
}
"""Classes whose logit is linear in the counts, with the weight of each kind."""

_JOINED: dict[str, dict[str, float]] = {
    "pair": {"plus": 1.0, "disc": 1.0},
    "either": {"ring": 1.0, "square": 1.0},
}
"""Classes whose logit needs a ReLU, with the weights of m."""


def _rules() -> tuple[nn.Linear, nn.Linear]:
    """Return the layers before and after the ReLU of the head; every unit before it is >= 0, or is to be rectified."""
    plans: list[tuple[str, dict[str, float], float, float]] = []  # class, weights, bias, factor after the ReLU
    for name, factors in _LINEAR.items():
        plans += [(name, {kind: abs(factor)}, 0.0, float(np.sign(factor))) for kind, factor in factors.items()]
    plans.append(("pair", _JOINED["pair"], -1.0, 1.0))
    plans += [("either", _JOINED["either"], 0.0, 1.0), ("either", _JOINED["either"], -1.0, -1.0)]
    before, after = nn.Linear(len(KINDS), len(plans)), nn.Linear(len(plans), len(CLASSES))
    weights_UK, bias_U = torch.zeros(len(plans), len(KINDS)), torch.zeros(len(plans))
    weights_NU, bias_N = torch.zeros(len(CLASSES), len(plans)), torch.zeros(len(CLASSES))
    for unit, (name, factors, bias, sign) in enumerate(plans):
        for kind, factor in factors.items():
            weights_UK[unit, KINDS.index(kind)] = factor * _AREA
        bias_U[unit] = bias
        weights_NU[CLASSES.index(name), unit] = sign
    bias_N[CLASSES.index("nothing")] = 0.25
    _set(before, weights_UK, bias_U)
    _set(after, weights_NU, bias_N)
    return before, after


def _detectors() -> nn.Sequential:
    """Build a filter per kind: 1 on the part's pixels and -1 on those around it, minus its size, plus 1, rectified."""
    convolution = nn.Conv2d(3, len(KINDS), 2 * _HALF + 1, padding=_HALF)
    templates = [_template(kind) for kind in KINDS]
    weights_KC = torch.stack([torch.from_numpy(template_hw) for template_hw in templates])
    sizes_K = torch.tensor([float((template_hw > 0).sum()) for template_hw in templates])
    first_colour_KCHW = torch.zeros_like(convolution.weight)
    first_colour_KCHW[:, 0] = weights_KC
    _set(convolution, first_colour_KCHW, 1 - sizes_K)
    return nn.Sequential(OrderedDict(conv=convolution, relu=nn.ReLU()))


def _template(kind: str) -> Image:
    """Return the filter of one kind: 1 where a part of it is white, -1 on the black pixels of its neighbourhood."""
    middle = SIDE // 2
    white_HW = _white(kind, middle, middle)
    around_HW = near(shape_mask(kind, middle, middle, RADIUS, 0.0), 2)
    template_HW = np.where(white_HW, 1.0, np.where(around_HW, -1.0, 0.0)).astype(np.float32)
    rows = slice(middle - _HALF, middle + _HALF + 1)
    return template_HW[rows, rows]


def _white(kind: str, x: int, y: int) -> Mask:
    """Mark the white pixels of a part; stripes and checks are partly black."""
    mask_HW = shape_mask(kind, x, y, RADIUS, 0.0)
    # the texture moves with the part, so that a filter fits wherever it stands
    pattern_HW = np.roll(surface(kind, _WHITE_BLACK, 0.0)[..., 0], (y, x), (0, 1)) > 0
    return mask_HW & pattern_HW


def _placed(kinds: list[str], random: np.random.Generator) -> tuple[Part, ...]:
    parts: list[Part] = []
    taken_HW = np.zeros((SIDE, SIDE), np.bool_)
    for kind in kinds:
        for _ in range(200):
            x, y = (int(place) for place in random.integers(_HALF, SIDE - _HALF, 2))
            mask_HW = shape_mask(kind, x, y, RADIUS, 0.0)
            if not (mask_HW & taken_HW).any():
                break
        else:
            return ()
        white_HW3 = np.repeat(_white(kind, x, y)[..., None], 3, 2).astype(np.float32)
        parts.append(Part(kind, mask_HW, white_HW3))
        taken_HW |= near(mask_HW, 9)
    return tuple(parts)


def _set(layer: nn.Linear | nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)
