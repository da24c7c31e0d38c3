"""Tiny networks of several tasks: what a segmentation, a detector and an image encoder return."""

from typing import Any

import torch
from torch import Tensor, nn

SIDE, CLASSES = 24, 4


class Body(nn.Module):
    """Two convolutions that halve the sides once."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, channels, 3, 1, 1), nn.ReLU())


class Segmenter(Body):
    """Returns logits of pixels as torchvision does."""

    def __init__(self, classes: int = CLASSES, form: str = "out") -> None:
        super().__init__()
        self.classifier, self.form = nn.Conv2d(6, classes, 1), form

    def forward(self, pixels_BCHW: Tensor) -> Any:
        logits_BNHW = nn.functional.interpolate(self.classifier(self.body(pixels_BCHW)), pixels_BCHW.shape[2:])
        forms = {
            "out": lambda: {"out": logits_BNHW, "aux": logits_BNHW},
            "softmax": lambda: logits_BNHW.softmax(1),
            "labels": lambda: logits_BNHW.argmax(1),
        }
        return forms[self.form]()


class Detector(Body):
    """Scores every cell for each class, and keeps the cells above its threshold; nothing of class 3 in dark images."""

    def __init__(self, threshold: float = 0.4, classes: int | None = CLASSES, off: int = 0) -> None:
        super().__init__()
        self.scores, self.off = nn.Conv2d(6, CLASSES - 1, 1), off
        self.score_thresh = threshold
        if classes is not None:
            self.num_classes = classes

    def forward(self, pixels_BCHW: Tensor) -> list[dict[str, Tensor]]:
        scores_BKuv = self.scores(self.body(pixels_BCHW)).sigmoid()
        return [self.found(scores_Kuv) for scores_Kuv in scores_BKuv]

    def found(self, scores_Kuv: Tensor) -> dict[str, Tensor]:
        kinds_D, rows_D, columns_D = (scores_Kuv > self.score_thresh).nonzero(as_tuple=True)
        corners_D2 = torch.stack([columns_D, rows_D], 1).float()
        return {
            "boxes": torch.cat([corners_D2, corners_D2 + 2], 1),
            "labels": kinds_D + 1 + self.off,
            "scores": scores_Kuv[kinds_D, rows_D, columns_D],
        }


class DetectorWithBranch(Detector):
    """Runs a layer on which no score depends."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, pixels_BCHW: Tensor) -> list[dict[str, Tensor]]:
        self.branch(pixels_BCHW)
        return super().forward(pixels_BCHW)


class Encoder(Body):
    """Returns an embedding (B, 5), as encoders of transformers do."""

    def __init__(self, form: str = "image_embeds", scale: float | None = None) -> None:
        super().__init__()
        self.projection, self.form = nn.Linear(6, 5), form
        if scale is not None:
            self.logit_scale = nn.Parameter(torch.tensor(scale))

    def forward(self, pixels_BCHW: Tensor) -> Any:
        acts_BKuv = self.body(pixels_BCHW)
        embedding_BD = self.projection(acts_BKuv.mean((2, 3)))
        forms = {
            "tensor": lambda: embedding_BD,
            "image_embeds": lambda: {"image_embeds": embedding_BD, "pooler_output": acts_BKuv.mean((2, 3))},
            "pooler_output": lambda: {"last_hidden_state": acts_BKuv, "pooler_output": embedding_BD[..., None, None]},
            "several": lambda: {"first": embedding_BD, "second": embedding_BD + 1},
            "map": lambda: acts_BKuv,
        }
        return forms[self.form]()


def seeded(build: Any, *args: Any, **kwargs: Any) -> nn.Module:
    """Build a network with the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model: nn.Module = build(*args, **kwargs).eval()
        return model


def images(count: int = 3, seed: int = 0) -> Tensor:
    """Return random images (B, C, H, W)."""
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def first_class_of_pixels(returned: dict[str, Tensor]) -> Tensor:
    """Reduce a segmentation to the largest logit of each class."""
    return returned["out"].flatten(2).amax(2)


def as_it_is(returned: object) -> object:
    """Reduce nothing."""
    return returned
