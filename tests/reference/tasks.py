"""Tasks, written literally: loops over pixels, detections and vectors, from the formulas of `pipeline.model.tasks`.

Legend: B images, N classes, (H, W) pixels, D numbers of an embedding.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def segmentation_logits(logits_BNHW: Tensor) -> Tensor:
    """Return the mean logit of each class over the pixels whose largest logit is its own, else over all pixels."""
    images = []
    for logits_NHW in logits_BNHW:
        classes, height, width = logits_NHW.shape
        own: list[list[Tensor]] = [[] for _ in range(classes)]
        everywhere: list[list[Tensor]] = [[] for _ in range(classes)]
        for i in range(height):
            for j in range(width):
                pixel_N = logits_NHW[:, i, j]
                winner = max(range(classes), key=lambda c, pixel_N=pixel_N: float(pixel_N[c].detach()))
                for c in range(classes):
                    everywhere[c].append(pixel_N[c])
                    if (c == winner) if classes > 1 else float(pixel_N[0].detach()) > 0:
                        own[c].append(pixel_N[c])
        means = [sum(own[c] or everywhere[c]) / len(own[c] or everywhere[c]) for c in range(classes)]
        images.append(torch.stack(means))  # type: ignore[arg-type]
    return torch.stack(images)


def detection_scores(found: Sequence[Mapping[str, Tensor]], classes: int) -> Tensor:
    """Return the highest score of each class among the detections of each image; 0 without a detection."""
    images = []
    for image in found:
        scores: list[Tensor] = [torch.zeros(()) for _ in range(classes)]
        for label, score in zip(image["labels"].tolist(), image["scores"], strict=True):
            if float(score.detach()) > float(scores[label].detach()):
                scores[label] = score
        images.append(torch.stack(scores))
    return torch.stack(images)


def cosines(embeddings_BD: Tensor, vectors_ND: Tensor) -> Tensor:
    """Return the cosine of each embedding and each vector."""
    rows = []
    for embedding_D in embeddings_BD:
        row = []
        for vector_D in vectors_ND:
            product = sum(a * b for a, b in zip(embedding_D, vector_D, strict=True))
            lengths = sum(a * a for a in embedding_D) * sum(b * b for b in vector_D)
            row.append(product / torch.sqrt(torch.as_tensor(lengths)))
        rows.append(torch.stack(row))  # type: ignore[arg-type]
    return torch.stack(rows)


def zero_shot_confidences(cosines_BN: Tensor, scale: float, bias: float | None) -> Tensor:
    """Return the softmax of the scaled cosines, or with a bias the sigmoid of each."""
    rows = []
    for cosines_N in cosines_BN.tolist():
        logits = [scale * cosine + (bias or 0.0) for cosine in cosines_N]
        if bias is None:
            exponentials = [math.exp(logit - max(logits)) for logit in logits]
            rows.append([value / sum(exponentials) for value in exponentials])
        else:
            rows.append([1 / (1 + math.exp(-logit)) for logit in logits])
    return torch.tensor(rows)
