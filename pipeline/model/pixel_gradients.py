"""One full backward pass from a score to the pixels, and to the outputs of modules on the way.

Legend: P rows of a pass, C colours, (H, W) pixels, K channels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.model.batching import Batcher, for_autograd
from pipeline.model.counts import Counts
from pipeline.model.engine import Engine
from pipeline.model.head import Readout
from pipeline.model.outputs import Outputs
from pipeline.model.recording import watching


def pixel_gradients(
    engine: Engine,
    batcher: Batcher,
    counts: Counts,
    kind: Outputs,
    pixels_PCHW: Tensor,
    targets_P: Tensor,
    readout: Readout,
    taps: Mapping[str, nn.Module],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a score's gradients with respect to the pixels (P, C, H, W), and to the outputs of `taps` it uses."""
    count = len(pixels_PCHW)
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode(False), torch.enable_grad():
        inputs_PCHW = batcher.pad_images(for_autograd(pixels_PCHW)).detach().requires_grad_()
        with watching(taps, outputs):
            logits_PN = engine.plain(inputs_PCHW, differentiable=True)
        logits_PN = kind.connected(logits_PN, [inputs_PCHW])[:count]
        score = readout(logits_PN, for_autograd(targets_P)).sum()
        grads_PCHW, *by_output = torch.autograd.grad(score, [inputs_PCHW, *outputs.values()], allow_unused=True)
    counts.forwards += count
    counts.backwards += count
    named = zip(outputs, by_output, strict=True)
    return grads_PCHW[:count].float(), {name: grad[:count].float() for name, grad in named if grad is not None}
