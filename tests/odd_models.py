"""Small models of many kinds: some cannot give trustworthy rows, and the sentence that refuses them; others can."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

SIDE = 32


class Body(nn.Module):
    """A small classifier; other models change one step of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.linear = nn.Linear(8, 5)

    def before(self, pixels_BCHW: Tensor) -> Tensor:
        return pixels_BCHW

    def after(self, logits_BN: Tensor) -> Any:
        return logits_BN

    def pooled(self, acts_BKuv: Tensor) -> Tensor:
        return acts_BKuv.mean((2, 3))

    def forward(self, pixels_BCHW: Tensor) -> Any:
        return self.after(self.linear(self.pooled(self.body(self.before(pixels_BCHW)))))


class Counting(Body):
    """Gives other logits from some call on, and counts calls in another way in each subclass."""

    limit = 2

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def after(self, logits_BN: Tensor) -> Tensor:
        self.calls += 1
        return logits_BN * (1 + (self.calls > self.limit))


class CountingLong(Counting):
    limit = 20


class CountingInBuffer(Body):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def after(self, logits_BN: Tensor) -> Tensor:
        self.calls += 1
        return logits_BN * (1 + (self.calls > 20))


class Alternating(Counting):
    def after(self, logits_BN: Tensor) -> Tensor:
        self.calls = 1 - self.calls
        return logits_BN + self.calls


class Drifting(Body):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(5))

    def after(self, logits_BN: Tensor) -> Tensor:
        self.mean.lerp_(logits_BN.detach().mean(0), 0.01)
        return logits_BN - self.mean


class HarmlessCounter(Counting):
    def after(self, logits_BN: Tensor) -> Tensor:
        self.calls += 1
        return logits_BN


class Dropping(Body):
    def pooled(self, acts_BKuv: Tensor) -> Tensor:
        return functional.dropout(acts_BKuv, 0.5).mean((2, 3))


class RarelyDropping(Body):
    def pooled(self, acts_BKuv: Tensor) -> Tensor:
        return acts_BKuv.mean((2, 3)) * (torch.rand(()) > 0.2)


class BatchStatistics(Body):
    def __init__(self) -> None:
        super().__init__()
        self.body.insert(1, nn.BatchNorm2d(8, track_running_stats=False))


class RelativeToFirst(Body):
    def after(self, logits_BN: Tensor) -> Tensor:
        return logits_BN - logits_BN[:1]


class Raising(Body):
    def pooled(self, acts_BKuv: Tensor) -> Tensor:
        return self.missing(acts_BKuv)


class Returning(Body):
    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.change = change

    def after(self, logits_BN: Tensor) -> object:
        return self.change(logits_BN)


class Rounding(Body):
    """Asks PyTorch for TF32 in every pass."""

    def after(self, logits_BN: Tensor) -> object:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        return logits_BN


class InPlace(Body):
    def before(self, pixels_BCHW: Tensor) -> Tensor:
        return pixels_BCHW.mul_(0.5).add_(0.1)


class TwoInputs(Body):
    def forward(self, pixels_BCHW: Tensor, ages_B: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(pixels_BCHW) + ages_B


class Reentrant(Body):
    def pooled(self, acts_BKuv: Tensor) -> Tensor:
        return checkpoint(super().pooled, acts_BKuv, use_reentrant=True)


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> Tensor:
        raise NotImplementedError("backward of my kernel")


class FailingBackward(Body):
    def pooled(self, acts_BKuv: Tensor) -> Tensor:
        return NoBackward.apply(acts_BKuv.mean((2, 3)))


class Inference(Body):
    def pooled(self, acts_BKuv: Tensor) -> Tensor:
        with torch.inference_mode():
            return acts_BKuv.mean((2, 3))


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv3d(3, 8, 3)
        self.linear = nn.Linear(8, 5)

    def forward(self, pixels_BCDHW: Tensor) -> Tensor:
        return self.linear(self.body(pixels_BCDHW).mean((2, 3, 4)))


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Body()


def in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Body()


def lazy() -> nn.Module:
    model = Body()
    model.linear = nn.LazyLinear(5)
    return model


def detection() -> nn.Module:
    from torchvision.models import detection as models

    return models.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Body(), {nn.Linear}, dtype=torch.qint8)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "raises": (Raising, "forward pass of float32 images (4, 3, 32, 32) raised AttributeError: 'Raising' object has no"),
    "None": (lambda: Returning(lambda _: None), "returns"),
    "list": (lambda: Returning(lambda z: [z, z]), "model.output_key"),
    "list of lists": (lambda: Returning(lambda z: z.tolist()), "returns"),
    "dict without logits": (lambda: Returning(lambda z: {"a": z, "b": z}), "output_key"),
    "four dimensions": (lambda: Returning(lambda z: z[:, :, None, None].expand(-1, -1, 4, 4)), "returns a tensor"),
    "fewer rows": (lambda: Returning(lambda z: z[:1]), "1 rows for 4 images"),
    "NaN": (lambda: Returning(lambda z: z / 0 * 0), "NaN or infinity"),
    "sets the precision of products": (Rounding, "changes how PyTorch multiplies float32 numbers"),
    "counts calls": (Counting, "change from one pass to the next"),
    "counts many calls": (CountingLong, "change from one pass to the next"),
    "counts in a buffer": (CountingInBuffer, "change from one pass to the next"),
    "alternates": (Alternating, "change from one pass to the next"),
    "drifts": (Drifting, "change from one pass to the next"),
    "functional dropout": (Dropping, "change from one pass to the next"),
    "rare chance": (RarelyDropping, "although the model is in evaluation mode"),
    "batch statistics": (BatchStatistics, "other logits alone than in a batch"),
    "relative to the first": (RelativeToFirst, "other logits alone than in a batch"),
    "float64": (lambda: Body().double(), "parameters are torch.float64"),
    "half": (lambda: Body().half(), "parameters are torch.float16"),
    "meta": (on_meta, "on the meta device"),
    "inference mode": (in_inference_mode, "built inside torch.inference_mode"),
    "lazy": (lazy, "lazy layers without shapes"),
    "script": (lambda: torch.jit.trace(Body(), torch.zeros(2, 3, SIDE, SIDE)), "TorchScript module"),
    "graph": (lambda: torch.export.export(Body(), (torch.zeros(2, 3, SIDE, SIDE),)).module(), "exported graph"),
    "quantised": (quantised, "the model is quantised (layer 'linear')"),
    "two inputs": (TwoInputs, "takes 2 inputs (pixels_BCHW, ages_B); wrap it"),
    "volumes": (Volumes, "has 3-D convolutions"),
    "detection": (detection, "SSD is a detection model"),
    "reentrant checkpoint": (Reentrant, "uses reentrant checkpointing"),
    "backward raises": (FailingBackward, "raised NotImplementedError: backward of my kernel (odd_models.py:"),
    "inference mode inside": (Inference, "uses torch.inference_mode"),
}
RIGHT: dict[str, Callable[[], nn.Module]] = {
    "in place": InPlace,
    "harmless counter": HarmlessCounter,
    "dict": lambda: Returning(lambda z: {"logits": z, "features": z[:, :2]}),
    "frozen": lambda: Body().requires_grad_(False),
    "training mode": lambda: Body().train(),
}
