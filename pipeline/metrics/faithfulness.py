"""Does the map show what the model relies on? The model is asked again, seeing only what the map shows.

Legend: B images, M maps. E heat map in [0, 1], Y = p(x) and O = p(x * E) softmax probabilities of the target.
"""

from typing import Any, ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
from pipeline.metrics.base import Trial
from pipeline.model.baselines import Baseline

GRADCAM_PP = Paper(
    "Chattopadhay, Sarkar, Howlader, Balasubramanian",
    "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks",
    "WACV", 2018, "arXiv 1710.11063",
)  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class AverageDrop:
    """Drop of the target's confidence when the image is seen through the map, as a share of it.

    drop = max(0, Y - O) / Y,   Y = p(x),   O = p(x * E)

    Reads the softmax probability. In [0, 1], lower is better; the papers print the mean over images in per cent.
    Never above 1 - increase. A degenerate map shows nothing: its drop is that of the removed image.

    Parameters:
        fill: what shows through where E is 0: mean (zero in normalised space, as all libraries do), black, blur.
    """

    fill: Baseline = "mean"

    name: ClassVar[str] = "average_drop"
    unit: ClassVar[str] = "share of the confidence, [0, 1]"
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    reads: ClassVar[Literal["probability", "logit", "map"]] = "probability"
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = GRADCAM_PP

    def __call__(self, trial: Trial) -> Tensor:
        """Compute the drop of each image and map, (B, M)."""
        clean_B1 = trial.evidence.target_confidences_B[:, None]
        masked_BM = trial.masked(self.fill).confidences_BMS[:, :, 0]
        return (clean_B1 - masked_BM).clamp_min(0) / clean_B1

    def passes(self) -> frozenset[str]:
        """One masked forward per map."""
        return frozenset({f"masked:{self.fill}"})


@dataclass(frozen=True, config=STRICT)
class Increase:
    """Whether the target's confidence rises when the image is seen through the map.

    increase = 1 if O > Y else 0,   Y = p(x),   O = p(x * E)

    Reads the softmax probability. 0 or 1, higher is better; the papers print the share of images in per cent.

    Parameters:
        fill: what shows through where E is 0: mean (zero in normalised space, as all libraries do), black, blur.
    """

    fill: Baseline = "mean"

    name: ClassVar[str] = "increase"
    unit: ClassVar[str] = "0 or 1"
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    reads: ClassVar[Literal["probability", "logit", "map"]] = "probability"
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = GRADCAM_PP

    def __call__(self, trial: Trial) -> Tensor:
        """Tell for each image and map, (B, M), whether the confidence rose."""
        clean_B1 = trial.evidence.target_confidences_B[:, None]
        return (trial.masked(self.fill).confidences_BMS[:, :, 0] > clean_B1).float()

    def passes(self) -> frozenset[str]:
        """One masked forward per map, shared with average_drop."""
        return frozenset({f"masked:{self.fill}"})
