"""Does a box drawn around the map's peak fit the object's box, and what does the model say without the object?

Legend: B rows, M maps, L = 256 thresholds, (H, W) pixels. E heat map in [0, 1].
"""

from collections.abc import Callable, Iterable, Iterator
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
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import Boxed, View
from pipeline.model.baselines import Baseline

Which = Literal["largest", "all"]
Levels = Callable[[npt.NDArray[np.float32]], Iterable[npt.NDArray[np.bool_]]]
"""Cuts a heat map at its thresholds."""
BoxArray = npt.NDArray[np.int64]
LEVELS = 256
"""Thresholds that differ: those between the 256 values of a map in 8 bits."""

CHOE = Paper(
    "Choe, Oh, Lee, Chun, Akata, Shim", "Evaluating Weakly Supervised Object Localization Methods Right",
    "CVPR", 2020, "arXiv 2001.07437",
)  # fmt: skip
OURS = Paper("camatlas", "defined here", "this project", 2026, "no publication")


@dataclass(frozen=True, config=STRICT)
class BoxIou(ReadsMap):
    """Overlap of the object's box with the box around the map where it is large.

    box_iou = IoU( box around the largest connected region of E > threshold, box of the object )

    Neighbours are the eight around a pixel; of regions of one size the first in raster order counts. The best one of
    the object's boxes counts. Both boxes are in whole pixels, their ends included. In [0, 1], higher is better; a hit
    is a value >= 1/2. 0 for a degenerate map, NaN without a box; masks are taken as the box around them.

    Parameters:
        threshold: 0.2 as Zhou (CAM); Grad-CAM takes 0.15.
        regions: largest, or all: the best box of any region.
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
        return _per_map(batch, lambda map_HW: [map_HW > self.threshold], self.regions)[..., 0]


@dataclass(frozen=True, config=STRICT)
class BoxIouCurve(ReadsMap):
    """Overlap of the object's box with the box around the map, for each of 256 thresholds.

    box_iou_curve[t] = IoU( box around the largest connected region of floor(255 E) > t, box of the object )

    for t = 0 .. 255.

    As box_iou; its column is a list, the last number of which is always 0. From it MaxBoxAcc is one line of SQL over
    the run: the largest share of images, over t, with a value >= 1/2; version 2 takes all regions and means it over
    0.3, 0.5 and 0.7. The threshold has to be chosen over all images, so no single image has a MaxBoxAcc.

    Parameters:
        regions: largest, or all: the best box of any region.

    The preset v2 is that of MaxBoxAccV2: all regions. The authors draw boxes around OpenCV contours, which end one
    pixel behind the region.
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

        def levels(map_HW: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.bool_]]:
            small_HW = np.floor(map_HW * (LEVELS - 1)).astype(np.uint8)
            return (small_HW > level for level in range(LEVELS))

        return _per_map(batch, levels, self.regions)

    def length(self) -> int:
        """The thresholds."""
        return LEVELS


@dataclass(frozen=True, config=STRICT)
class _Confidence(ReadsMap):
    """What the two metrics share that cut the image along the box."""

    fill: Baseline = "mean"

    unit: ClassVar[str] = "confidence, [0, 1]"
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "neither"
    paper: ClassVar[Paper] = OURS
    show: ClassVar[Literal["inside", "outside"]] = "inside"

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Give the confidence of each row, (B, M), the same for every map."""
        maps = batch.heatmaps_BMHW.shape[1]
        return batch.scores(self.views()[0]).confidences_BMS[..., 0].expand(-1, maps)

    def views(self) -> tuple[View, ...]:
        """One image per row."""
        return (Boxed(self.show, self.fill),)


@dataclass(frozen=True, config=STRICT)
class BoxRemovedConfidence(_Confidence):
    """What the model says of the target when the object is removed.

    box_removed_confidence = p(x outside G, fill inside G)

    Softmax probability in [0, 1]; the same for every method, NaN without a box. High means that the surroundings are
    enough for the model. It says something of the model, not of the map, so neither direction is better.

    Parameters:
        fill: what stands where the object was.
    """

    name: ClassVar[str] = "box_removed_confidence"
    show: ClassVar[Literal["inside", "outside"]] = "outside"


@dataclass(frozen=True, config=STRICT)
class BoxOnlyConfidence(_Confidence):
    """What the model says of the target when everything but the object is removed.

    box_only_confidence = p(x inside G, fill outside G)

    Softmax probability in [0, 1]; the same for every method, NaN without a box. Low means that the object alone is not
    enough for the model. It says something of the model, not of the map, so neither direction is better.

    Parameters:
        fill: what stands where the surroundings were.
    """

    name: ClassVar[str] = "box_only_confidence"


def regions_boxes(mask_HW: npt.NDArray[np.bool_], which: Which) -> BoxArray:
    """Boxes (n, 4) as (x0, y0, x1, y1), ends included, around the connected regions of a mask."""
    from scipy import ndimage  # costs time to import, and few runs draw boxes

    labels_HW, count = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    if not count:
        return np.empty((0, 4), np.int64)
    spans = ndimage.find_objects(labels_HW)
    if which == "largest":
        spans = [spans[int(np.bincount(labels_HW.ravel(), minlength=count + 1)[1:].argmax())]]
    return np.array([(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in spans])


def best_iou(one_n4: BoxArray, other_m4: BoxArray) -> float:
    """Largest intersection over union of any two boxes, ends included; 0 where there is none."""
    if not len(one_n4) or not len(other_m4):
        return 0.0
    low_nm2 = np.maximum(one_n4[:, None, :2], other_m4[None, :, :2])
    high_nm2 = np.minimum(one_n4[:, None, 2:], other_m4[None, :, 2:])
    shared_nm = (high_nm2 - low_nm2 + 1).clip(0).prod(2)
    sizes_n, sizes_m = ((boxes[:, 2:] - boxes[:, :2] + 1).prod(1) for boxes in (one_n4, other_m4))
    return float((shared_nm / (sizes_n[:, None] + sizes_m[None] - shared_nm)).max())


def _per_map(batch: ScoringBatch, levels: Levels, which: Which) -> Tensor:
    """Best overlap of every row, map and level, (B, M, L)."""
    rows = []
    for map_MHW, truth_n4 in zip(batch.heatmaps_BMHW.float().cpu().numpy(), _true_boxes(batch), strict=True):
        rows.append(
            [[best_iou(regions_boxes(mask_HW, which), truth_n4) for mask_HW in levels(map_HW)] for map_HW in map_MHW]
        )
    overlaps_BML = torch.tensor(rows, device=batch.heatmaps_BMHW.device, dtype=torch.float32)
    return overlaps_BML.masked_fill(~batch.inside_BHW.flatten(1).any(1)[:, None, None], torch.nan)


def _true_boxes(batch: ScoringBatch) -> list[BoxArray]:
    """The object's boxes in whole pixels, ends included; of a mask the box around it."""
    masks = batch.truth.masks_HW or [None] * len(batch.truth.boxes_xyxy)
    found = []
    for boxes_n4, mask_HW in zip(batch.truth.boxes_xyxy, masks, strict=True):
        single = [mask_HW.bool().cpu().numpy()] if mask_HW is not None else _box_masks(boxes_n4, batch.size)
        around = [mask_extent(one_HW) for one_HW in single if one_HW.any()]
        found.append(np.array(around, np.int64).reshape(-1, 4))
    return found


def _box_masks(boxes_n4: Tensor | None, size: tuple[int, int]) -> list[npt.NDArray[np.bool_]]:
    return [] if boxes_n4 is None else [box_mask(box_4[None], *size).numpy() for box_4 in boxes_n4]


def mask_extent(mask_HW: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Box around all of a mask that holds something."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
