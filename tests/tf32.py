"""What TF32 costs in accuracy, emulated on the CPU: `python tests/tf32.py NETWORK WEIGHTS.safetensors FOLDER COUNT`.

NVIDIA's GPUs round both factors of a product to 10 bits of mantissa and add in float32. Here the inputs of
convolutions and matrix products, forwards and backwards, are rounded so before the CPU multiplies them in float32.
Prints for each method the rank correlation with the maps of fp32, and how far the mean of each metric moves.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.cams import build_methods
from pipeline.data.decode import frame_image
from pipeline.data.limits import DecodeLimits
from pipeline.explain.explanations import Explanations, explain_evidence, measure, observe
from pipeline.maps.similarity import enlarged, spearman
from pipeline.metrics import Truth, build_metrics
from pipeline.model.baselines import Normalisation
from pipeline.model.probe import Probe
from pipeline.settings.preprocess import Preprocess

LAYERS = {"mobilenet_v2": "features", "squeezenet1_1": "features", "resnet18": "layer4", "vit_b_16": "encoder.ln"}
METHODS: list[Any] = [
    "gradcam", "gradcam_pp", "layercam", "hirescam", "eigen_cam", "eigen_gradcam", "integrative_cam", "refine_cam",
    {"integrated_gradcam": {"steps": 20}}, {"scorecam": {"clusters": 16}}, {"rise": {"num_masks": 64}},
]  # fmt: skip
METRICS: list[Any] = [
    "average_drop", "increase", {"insertion": {"steps": 10}}, {"deletion": {"steps": 10}}, "complexity"
]  # fmt: skip
_FACTORS = {
    "aten::convolution": (0, 1), "aten::convolution_backward": (0, 1, 2), "aten::mm": (0, 1), "aten::bmm": (0, 1),
    "aten::addmm": (1, 2), "aten::baddbmm": (1, 2),
}  # fmt: skip
"""The places of the factors among the arguments of operations that multiply on tensor cores."""


class EmulatedTf32(TorchDispatchMode):
    """Rounds the float32 factors of convolutions and matrix products as TF32 does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = list(args)
        for place in _FACTORS.get(func._schema.name, ()):
            if args[place].dtype == torch.float32:
                args[place] = rounded(args[place])
        return func(*args, **(kwargs or {}))


def rounded(values: Tensor) -> Tensor:
    """Round float32 numbers to 10 bits of mantissa, ties to even."""
    bits = values.detach().clone(memory_format=torch.preserve_format).view(torch.int32)
    bits += 0x0FFF + ((bits >> 13) & 1)
    return (bits & ~0x1FFF).view(torch.float32)


def explained(probe: Probe, pixels_BCHW: Tensor, keys: list[str], targets: Tensor | None) -> Explanations:
    """Explain the predicted classes, or the given ones."""
    methods = build_methods(METHODS)
    return explain_evidence(observe(pixels_BCHW, methods, probe, keys).evidence(targets), methods, probe)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(name: str, weights: str, folder: str, count: int) -> None:
    """Compare the maps and metrics of one network on the first photographs of a folder."""
    files = sorted(Path(folder).glob("*.JPEG"))[:count]
    framed = [frame_image(file.read_bytes(), None, Preprocess(224, 256), DecodeLimits()).pixels_HWC for file in files]
    pixels_BCHW = torch.from_numpy(np.stack(framed)).permute(0, 3, 1, 2).float().div(255)
    model = getattr(torchvision.models, name)(weights=None)
    model.load_state_dict({key: value.float() for key, value in load_file(weights).items()}, strict=False)
    keys, truth = [file.name for file in files], Truth([None] * count)
    probe = Probe(model.eval(), LAYERS[name], batch=16, batch_multiple=16, normalisation=Normalisation(), seed=5)
    pixels_BCHW = Normalisation().apply(pixels_BCHW)
    exact = explained(probe, pixels_BCHW, keys, None)
    values = measure(exact, build_metrics(METRICS), truth)
    with EmulatedTf32():
        coarse = explained(probe, pixels_BCHW, keys, exact.evidence.targets_B)
        coarse_values = measure(coarse, build_metrics(METRICS), truth)
    moved = (coarse.logits - exact.logits).abs().max() / exact.logits.abs().max()
    other = int((coarse.logits.argmax(1) != exact.logits.argmax(1)).sum())
    say(f"{name}, {count} images: logits move by at most {moved:.1e} of the largest; {other} predictions change")
    say(f"| | Spearman, mean | worst | {' | '.join(values)} |")
    for label in exact.maps:
        ranks = spearman(*(enlarged(each.maps[label].float().numpy()) for each in (exact, coarse)))
        changes = (coarse_values[metric][label].nanmean() - values[metric][label].nanmean() for metric in values)
        moves = "".join(f" {float(change):+.4f} |" for change in changes)
        say(f"| `{label}` | {np.nanmean(ranks):.4f} | {np.nanmin(ranks):.3f} |{moves}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
