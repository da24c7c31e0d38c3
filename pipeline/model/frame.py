"""Checks that a model reads the whole image: maps of one that crops its input would lie in wrong places.

Legend: C colours, (H, W) pixels.
"""

import torch
from torch import Tensor, nn

from pipeline.errors import LayerError
from pipeline.model.engine import Exact
from pipeline.model.layer_names import module_of
from pipeline.model.layout import View
from pipeline.model.layout_trial import Shape
from pipeline.model.outputs import Outputs
from pipeline.model.recording import watching

_UNREAD_BEFORE, _UNREAD_AFTER = 0.3, 1.0
"""Largest parts of a cell that may be left out at the top and the left, and at the bottom and the right: strides and
kernels leave out a few pixels, mostly after the last cell."""
_IMAGES = 2


def check_frame(model: nn.Module, outputs: Outputs, shape: Shape, view: View, layer: str = "") -> None:
    """Raise LayerError if the outer pixels of an image, a good part of a cell wide, do not reach the target layer.

    Args:
        model: the model.
        outputs: how the model's return value becomes logits.
        shape: colours, height and width of the images.
        view: layout of the target layer.
        layer: the target layer. What a later layer leaves out has cells in the map, and their place is right. Without
            a name, all pixels must reach the logits.
    """
    unread = _unread_margins(model, outputs, shape, layer)
    cells = (shape[1] / view.height, shape[1] / view.height, shape[2] / view.width, shape[2] / view.width)
    allowed = (_UNREAD_BEFORE, _UNREAD_AFTER) * 2
    if any(pixels > part * cell for pixels, part, cell in zip(unread, allowed, cells, strict=True)):
        named = zip(unread, ("top", "bottom", "left", "right"), strict=True)
        margins = ", ".join(f"{pixels} at the {side}" for pixels, side in named if pixels)
        raise LayerError(
            f"the model does not read all of the image: {margins} of {shape[1]} x {shape[2]} pixels never reach its "
            "target layer, so it crops its input, and maps would lie in wrong places; give it images of the size "
            "that it reads (model.preprocess)"
        )


def _unread_margins(model: nn.Module, outputs: Outputs, shape: Shape, layer: str) -> tuple[int, int, int, int]:
    """Count the rows above and below, and the columns left and right, that are not read; 0 where strides explain it."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    noise = torch.randn(_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(False), torch.enable_grad():
        pixels_BCHW = noise.to(device).requires_grad_()
        logits_BN = _reached(model, outputs, pixels_BCHW, layer)
        if not logits_BN.requires_grad:
            return 0, 0, 0, 0
        weights_N = torch.linspace(1, 2, logits_BN.shape[1], device=device) / logits_BN.detach().abs().max()
        (grads,) = torch.autograd.grad((logits_BN * weights_N).sum(), [pixels_BCHW], allow_unused=True)
    if grads is None or not bool(grads.any()):
        return 0, 0, 0, 0
    read_HW = (grads != 0).any(1).any(0)
    return (*_margins(read_HW.any(1)), *_margins(read_HW.any(0)))


def _reached(model: nn.Module, outputs: Outputs, pixels_BCHW: Tensor, layer: str) -> Tensor:
    """Return what every pixel should reach, (B, N): the logits, or what the target layer gives."""
    acts = dict[str, Tensor]()
    with watching({layer: model.get_submodule(module_of(layer))} if layer else {}, acts):
        logits_BN = Exact(model, outputs).logits(pixels_BCHW, differentiable=True)
    return acts[layer].flatten(1) if layer in acts else logits_BN


def _margins(read: Tensor) -> tuple[int, int]:
    """Count what is not read before the first and after the last place, if it is more than between two places."""
    places = read.nonzero()[:, 0]
    before, after = int(places[0]), len(read) - 1 - int(places[-1])
    gap = int((places[1:] - places[:-1]).max()) - 1 if len(places) > 1 else 0
    return (before if before > gap else 0, after if after > gap else 0)
