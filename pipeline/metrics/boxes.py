"""Metrics of boxes: overlap of the map's box with the object's box, and confidence without or with only the object.

Legend: B rows, M maps, L = 256 thresholds, (H, W) pixels. E heat map in [0, 1], G pixels of the object.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.heatmap_batch import box_mask
from pipeline.metrics.regions import LEVELS, regions_above
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import Boxed, View
from pipeline.model.baselines import Baseline
from pipeline.model.transfers import sent

Which = Literal["largest", "all"]
Heatmap = npt.NDArray[np.float32]
BoxArray = npt.NDArray[np.int64]
Overlaps = Callable[[Heatmap, BoxArray], Sequence[float] | npt.NDArray[np.float64]]
"""Function that returns the best overlap with the object's boxes at each threshold, of a heat map and these boxes."""

CHOE = Paper(
    "Choe, Oh, Lee, Chun, Akata, Shim", "Evaluating Weakly Supervised Object Localization Methods Right",
    "CVPR", 2020, "arXiv 2001.07437",
)  # fmt: skip
OURS = Paper("camatlas", "defined here", "this project", 2026, "no publication")


@dataclass(frozen=True, config=STRICT)
class BoxIou(ReadsMap):
    """Intersection over union of the object's box and the box around the largest region above a threshold of the map.

    box_iou = IoU( box around the largest connected region of E > threshold, box of the object )

    Regions are connected through the eight neighbours of a pixel; of regions of equal size, the first in raster order
    is used. If the object has several boxes, the best IoU counts. Both boxes are in whole pixels, ends included. In
    [0, 1], higher is better; a hit is a value >= 1/2. 0 for a degenerate map, NaN without a box. A mask is replaced by
    the box around it.

    Parameters:
        threshold: on E; 0.2 as in the CAM paper (Zhou et al.); the Grad-CAM paper uses 0.15.
        regions: largest, or all, which takes the best box of any region.
    """

    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.2
    regions: Which = "largest"

    name: ClassVar[str] = "box_iou"
    unit: ClassVar[str] = "intersection over union, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = Paper(
        "Zhou, Khosla, Lapedriza, Oliva, Torralba", "Learning Deep Features for Discriminative Localization",
        "CVPR", 2016, "arXiv 1512.04150",
    )  # fmt: skip

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the overlap of each row and map, (B, M)."""

        def overlap(map_HW: Heatmap, truth_n4: BoxArray) -> list[float]:
            return [best_iou(regions_boxes(map_HW > self.threshold, self.regions), truth_n4)]

        return _per_map(batch, overlap)[..., 0]


@dataclass(frozen=True, config=STRICT)
class BoxIouCurve(ReadsMap):
    """Intersection over union of the object's box and the map's box, for each of 256 thresholds.

    box_iou_curve[t] = IoU( box around the largest connected region of floor(255 E) > t, box of the object )

    for t = 0 .. 255.

    Defined as box_iou, but the column is a list of 256 numbers; the last one is always 0. MaxBoxAcc is one line of SQL
    on this column: the largest fraction of images, over t, with a value >= 1/2. MaxBoxAccV2 uses all regions and
    averages over 0.3, 0.5 and 0.7 instead of 1/2. The threshold t is chosen over all images, so MaxBoxAcc is not
    defined for a single image.

    Parameters:
        regions: largest, or all, which takes the best box of any region.

    The preset v2 takes all regions, as MaxBoxAccV2. The authors draw boxes around OpenCV contours, which end one pixel
    after the region.
    """

    regions: Which = "largest"

    name: ClassVar[str] = "box_iou_curve"
    unit: ClassVar[str] = "intersection over union, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"v2": {"regions": "all"}}
    curve: ClassVar[bool] = True
    paper: ClassVar[Paper] = CHOE

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the overlaps of each row and map, (B, M, 256)."""

        def overlaps(map_HW: Heatmap, truth_n4: BoxArray) -> npt.NDArray[np.float64]:
            found = regions_above(map_HW)
            return (found.largest() if self.regions == "largest" else found).best_iou(truth_n4)

        return _per_map(batch, overlaps)

    def length(self) -> int:
        """Return the number of thresholds."""
        return LEVELS


@dataclass(frozen=True, config=STRICT)
class _Confidence(ReadsMap):
    """Shared part of the two metrics that remove the pixels inside or outside the box."""

    fill: Baseline = "mean"

    unit: ClassVar[str] = "confidence, [0, 1]"
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "neither"
    paper: ClassVar[Paper] = OURS
    show: ClassVar[Literal["inside", "outside"]] = "inside"

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the confidence of each row, (B, M), the same for every map."""
        maps = batch.heatmaps_BMHW.shape[1]
        return batch.scores(self.views()[0]).confidences_BMS[..., 0].expand(-1, maps)

    def views(self) -> tuple[View, ...]:
        """Return one changed image per row."""
        return (Boxed(self.show, self.fill),)


@dataclass(frozen=True, config=STRICT)
class BoxRemovedConfidence(_Confidence):
    """Confidence of the target when the object is removed from the image.

    box_removed_confidence = p(x outside G, fill inside G)

    x is the image, p the softmax probability, G the pixels of the object. In [0, 1]; the same for every method; NaN
    without a box. A high value means that the model can recognise the class from the surroundings. The value describes
    the model, not the map, so neither direction is better.

    Parameters:
        fill: values that replace the object.
    """

    name: ClassVar[str] = "box_removed_confidence"
    show: ClassVar[Literal["inside", "outside"]] = "outside"


@dataclass(frozen=True, config=STRICT)
class BoxOnlyConfidence(_Confidence):
    """Confidence of the target when everything except the object is removed from the image.

    box_only_confidence = p(x inside G, fill outside G)

    x is the image, p the softmax probability, G the pixels of the object. In [0, 1]; the same for every method; NaN
    without a box. A low value means that the model needs the surroundings to recognise the class. The value describes
    the model, not the map, so neither direction is better.

    Parameters:
        fill: values that replace the surroundings.
    """

    name: ClassVar[str] = "box_only_confidence"


def regions_boxes(mask_HW: npt.NDArray[np.bool_], which: Which) -> BoxArray:
    """Return the boxes (n, 4), as (x0, y0, x1, y1) with ends included, around the connected regions of a mask."""
    from scipy import ndimage  # slow to import, and few runs use this metric

    labels_HW, count = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    if not count:
        return np.empty((0, 4), np.int64)
    spans = ndimage.find_objects(labels_HW)
    if which == "largest":
        spans = [spans[int(np.bincount(labels_HW.ravel(), minlength=count + 1)[1:].argmax())]]
    return np.array([(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in spans])


def best_iou(one_n4: BoxArray, other_m4: BoxArray) -> float:
    """Compute the largest intersection over union of any two boxes, ends included; 0 if a list is empty."""
    if not len(one_n4) or not len(other_m4):
        return 0.0
    low_nm2 = np.maximum(one_n4[:, None, :2], other_m4[None, :, :2])
    high_nm2 = np.minimum(one_n4[:, None, 2:], other_m4[None, :, 2:])
    shared_nm = (high_nm2 - low_nm2 + 1).clip(0).prod(2)
    sizes_n, sizes_m = ((boxes[:, 2:] - boxes[:, :2] + 1).prod(1) for boxes in (one_n4, other_m4))
    return float((shared_nm / (sizes_n[:, None] + sizes_m[None] - shared_nm)).max())


def _per_map(batch: ScoringBatch, overlaps: Overlaps) -> Tensor:
    """Compute the best overlap of each row, map and threshold, (B, M, L)."""
    rows = [
        [overlaps(map_HW, truth_n4) for map_HW in map_MHW]
        for map_MHW, truth_n4 in zip(batch.heatmaps_BMHW.float().cpu().numpy(), _true_boxes(batch), strict=True)
    ]
    overlaps_BML = sent(torch.from_numpy(np.array(rows, np.float32)), batch.heatmaps_BMHW.device)
    return overlaps_BML.masked_fill(~batch.inside_BHW.flatten(1).any(1)[:, None, None], torch.nan)


def _true_boxes(batch: ScoringBatch) -> list[BoxArray]:
    """Return the object's boxes in whole pixels, ends included; for a mask, the box around it."""
    masks = batch.truth.masks_HW or [None] * len(batch.truth.boxes_xyxy)
    boxes = []
    for boxes_n4, mask_HW in zip(batch.truth.boxes_xyxy, masks, strict=True):
        single = [mask_HW.bool().cpu().numpy()] if mask_HW is not None else _box_masks(boxes_n4, batch.size)
        around = [mask_extent(one_HW) for one_HW in single if one_HW.any()]
        boxes.append(np.array(around, np.int64).reshape(-1, 4))
    return boxes


def _box_masks(boxes_n4: Tensor | None, size: tuple[int, int]) -> list[npt.NDArray[np.bool_]]:
    return [] if boxes_n4 is None else [box_mask(box_4[None], *size).numpy() for box_4 in boxes_n4]


def mask_extent(mask_HW: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the box around a non-empty mask, (x0, y0, x1, y1) with ends included."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
