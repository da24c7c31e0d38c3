"""Methods that change the target layer's output and run only the layers after it again.

Legend: I images, B rows (image, target), P changes in one pass, K channels, (u, v) grid, N classes.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, Paper, weighted_sum
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class AblationCam:
    """Ablation-CAM: activation maps weighted by the drop of the target logit when the channel is set to zero.

    M = ReLU( sum_k w_k A_k ),   w_k = S - S_k

    A_k is the activation map of channel k, S the target logit and S_k the target logit with channel k zeroed. Only the
    head, the layers after the target layer, runs again. If the head is global average pooling and one linear layer,
    w_k = w^c_k mean(A_k), with w^c the target class's row of that layer, and no extra pass is run.

    Parameters:
        divide_by_score: whether to divide w_k by the logit: no, abs (by |S|), or signed (by S, as in the paper). This
            only scales the map, except with signed and S < 0, where the weights change their sign.
    """

    divide_by_score: Literal["no", "abs", "signed"] = "no"

    name: ClassVar[str] = "ablation_cam"
    needs: ClassVar[Needs] = Needs()
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"divide_by_score": "signed"}}
    paper: ClassVar[Paper] = Paper(
        "Desai, Ramaswamy",
        "Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free Localization",
        "WACV", 2020, "doi 10.1109/WACV45572.2020.9093360",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        weights_NK = probe.linear_head(evidence)
        if weights_NK is None:
            drops_BK = self._drops(evidence, probe)
        else:
            drops_BK = weights_NK[evidence.targets_B] * evidence.acts_BKuv.mean((2, 3))
        logits_B1 = evidence.target_logits_B[:, None]
        if self.divide_by_score == "abs":
            drops_BK = drops_BK / (logits_B1.abs() + 1e-8)
        if self.divide_by_score == "signed":
            drops_BK = drops_BK / torch.where(logits_B1 == 0, 1.0, logits_B1)
        return weighted_sum(drops_BK, evidence.acts_BKuv)

    def cost(self, net: NetShape) -> Cost:
        """Count one head pass per channel, or none if the closed form applies."""
        return Cost(head_passes=0 if net.linear_head else net.target.channels)

    def _drops(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute S - S_k for every row and channel, (B, K)."""
        acts_BKuv = evidence.acts_BKuv

        def ablated(row: int, channels_P: Tensor) -> Tensor:
            changed_PKuv = acts_BKuv[row].repeat(len(channels_P), 1, 1, 1)
            changed_PKuv[torch.arange(len(channels_P)), channels_P] = 0
            return changed_PKuv

        logits_BK = _target_outputs(evidence, probe, acts_BKuv.shape[1], ablated, confidences=False)
        return evidence.target_logits_B[:, None] - logits_BK


@dataclass(frozen=True, config=STRICT)
class ReciproCam:
    """Recipro-CAM: the value of a cell is the target's confidence when only that cell's activations are kept.

    M_ij = p( head( A * m_ij ) )

    A are the activations (K, u, v). m_ij is a 3 x 3 binomial window, [1 2 1; 2 4 2; 1 2 1] / 16, centred on cell
    (i, j), cut at the border and the same for all channels. p is the target's softmax probability. No gradient is
    needed; the head, the layers after the target layer, runs u v times.

    Parameters:
        gaussian: use the window; False keeps the single cell (i, j), with weight 1.
    """

    gaussian: bool = True

    name: ClassVar[str] = "recipro_cam"
    needs: ClassVar[Needs] = Needs(confidences=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Byun, Lee", "ReciproCAM: Lightweight Gradient-free Class Activation Map for Post-hoc Explanations",
        "CVPR Workshops", 2024, "arXiv 2209.14074",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), in [0, 1]."""
        acts_BKuv = evidence.acts_BKuv
        height, width = acts_BKuv.shape[2:]
        windows_Zuv = _windows(height, width, gaussian=self.gaussian).to(acts_BKuv)

        def windowed(row: int, cells_P: Tensor) -> Tensor:
            return acts_BKuv[row] * windows_Zuv[cells_P, None]

        return _target_outputs(evidence, probe, height * width, windowed, confidences=True).reshape(-1, height, width)

    def cost(self, net: NetShape) -> Cost:
        """Count one head pass per cell."""
        return Cost(head_passes=net.target.height * net.target.width)


def _windows(height: int, width: int, *, gaussian: bool) -> Tensor:
    """Return the window of every cell, (u v, u, v)."""
    kernel_n = torch.tensor([1.0, 2.0, 1.0]) / 4 if gaussian else torch.tensor([0.0, 1.0, 0.0])
    bands = []
    for length in (height, width):
        distance = torch.arange(length)[:, None] - torch.arange(length)[None]
        bands.append(torch.where(distance.abs() <= 1, kernel_n[(distance + 1).clamp(0, 2)], 0.0))
    rows_uu, columns_vv = bands
    return torch.einsum("iu,jv->ijuv", rows_uu, columns_vv).reshape(height * width, height, width)


def _target_outputs(
    evidence: Evidence, probe: Probe, changes: int, change: Callable[[int, Tensor], Tensor], *, confidences: bool
) -> Tensor:
    """Run the head on changed activations: target logits or confidences (B, changes), one sweep per image."""
    per_image = []
    for rows_T in evidence.rows.by_image():
        row = int(rows_T[0])
        logits_PN = probe.head(evidence, row, changes, functools.partial(change, row))
        targets_T = evidence.targets_B[row : row + len(rows_T)]
        both_2PT = evidence.outputs.read(logits_PN, targets_T.expand(len(logits_PN), -1))
        per_image.append(both_2PT[1 if confidences else 0].T)
    return torch.cat(per_image)
