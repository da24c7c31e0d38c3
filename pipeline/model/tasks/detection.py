"""Detection: a list of boxes with classes and scores for each image, as the detectors of torchvision return it.

Legend: B images, N classes, D detections of one image.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, LayerError
from pipeline.model.outputs import OutputKey, described
from pipeline.model.tasks.base import Task

_WHERE = "model.task"
_ALL = 100_000
"""More detections than an image of a trial has."""
_BODIES = ("backbone.body", "backbone.features.0", "backbone.features")
"""What feeds every box of torchvision's detectors: the network before a feature pyramid, or before the heads of SSD."""


@dataclass(frozen=True)
class Detection(Task):
    """The confidence of a class is the highest score among its detections.

    Formula:
        p_c = max of s_d over the detections d with class c, and 0 if there is none; logit log p_c, p_c >= 1e-12.
        Equal highest scores share the gradient.

    Symbols:
        s_d: score of detection d in [0, 1].

    The classes have the detector's own numbers. 0 is the background, which no detection has, so that it is never
    predicted where anything is found. Suppression of overlapping boxes never changes p_c, since it keeps the best box.

    Shapes: returned: for each image a dict with `labels` (D,) int64 and `scores` (D,), and others; outputs (B, N).

    Source: Petsiuk and others, "Black-box Explanation of Object Detectors via Saliency Maps" (CVPR 2021), weigh masks
    by the similarity to one detection; here, each class stands for its best one.

    Attributes:
        classes: N, with the background.
        body: name of the module that feeds every box; "" if it is not known.
    """

    classes: int
    body: str = ""

    name = "detection"
    kinds = ("probabilities",)
    may_miss = True

    @classmethod
    def of(cls, model: nn.Module) -> "Detection":
        """Build the task for a detector, with the number of classes that its head has.

        Raises:
            ConfigError: the number of classes is not known.
        """
        classes = _classes_of(model)
        if classes is None or classes < 2:
            raise ConfigError.one(
                _WHERE,
                f"detection needs the number of classes, with the background as class 0, but {type(model).__name__} "
                + ("has no such head as torchvision's" if classes is None else f"has {classes}"),
                "give the model an attribute num_classes",
            )
        return cls(classes, next((name for name in _BODIES if _is_body(model, name)), ""))

    def outputs(self, returned: object, key: OutputKey | None) -> Tensor:  # noqa: ARG002 - refused before
        """Return the highest score of each class, (B, N); 0 for classes of which nothing was found.

        Raises:
            ConfigError: the model did not return a list of dicts with labels and scores.
        """
        if not isinstance(returned, (list, tuple)) or not returned:
            raise _no_detections(described(returned))
        return torch.stack([self._highest(found) for found in returned])

    def for_trials(self, model: nn.Module) -> nn.Module:
        """Return a copy of the detector, with the same weights, that keeps detections of any score: noise has low ones.

        The attribute `score_thresh` of modules is below every score there, and `detections_per_img` above every number.
        """
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        try:
            trial = copy.deepcopy(model, shared)
        except Exception:  # a module may hold objects that cannot be copied: locks, graphs, files
            return model
        for module in trial.modules():
            for name, value in (("score_thresh", -1.0), ("detections_per_img", _ALL)):
                if isinstance(vars(module).get(name), (int, float)):
                    setattr(module, name, value)
        return trial

    def layers_within(self) -> str:
        """Return the module that feeds every box: maps of a layer that only some boxes read are empty for the others.

        Raises:
            LayerError: the detector is none of torchvision's.
        """
        if not self.body:
            raise LayerError(
                "'auto' does not know which layers of this detector all of its boxes depend on; name one, such as the "
                "last of the network before its heads"
            )
        return self.body

    def _highest(self, found: object) -> Tensor:
        """Return the highest score of each class in one image, (N,)."""
        if not isinstance(found, dict) or not {"labels", "scores"} <= found.keys():
            raise _no_detections(f"a list of {described(found)}")
        labels_D, scores_D = found["labels"], found["scores"].float()
        if len(labels_D) and not 0 <= int(labels_D.min()) <= int(labels_D.max()) < self.classes:
            label = int(labels_D.min() if int(labels_D.min()) < 0 else labels_D.max())
            raise ConfigError.one(
                _WHERE, f"the model found class {label}, but has {self.classes} classes", "correct its num_classes"
            )
        nothing_N = scores_D.new_zeros(self.classes)
        best_N: Tensor = nothing_N.scatter_reduce(0, labels_D.long(), scores_D, "amax")
        return best_N


def check_padding(model: nn.Module, pixels_BCHW: Tensor) -> None:
    """Raise ConfigError if a detector of torchvision pads images of this size: maps are laid over the whole input.

    Args:
        model: the detector.
        pixels_BCHW: images of the run's size.
    """
    transform: Any = getattr(model, "transform", None)
    if type(transform).__module__ != "torchvision.models.detection.transform":  # importing the class takes seconds
        return
    with torch.no_grad():
        images, _ = transform([*pixels_BCHW[:1]])
    height, width = (int(side) for side in images.image_sizes[0])
    padded = tuple(images.tensors.shape[-2:])
    if padded != (height, width):
        raise ConfigError.one(
            "model.preprocess",
            f"the detector resizes images of {pixels_BCHW.shape[2]} x {pixels_BCHW.shape[3]} to {height} x {width} and "
            f"pads them to {padded[0]} x {padded[1]}, so that maps would be shifted",
            "set crop to sides for which it pads nothing: squares, if its min_size is a multiple of "
            f"{transform.size_divisible}",
        )


def _no_detections(returned: str) -> ConfigError:
    return ConfigError.one(
        _WHERE,
        f"detection needs a list with a dict of boxes, labels and scores for each image, but the model returns "
        f"{returned}",
        "write a function that makes (B, N) of it, and set model.task: package.module:function",
    )


def _classes_of(model: nn.Module) -> int | None:
    """Return the number of classes of torchvision's heads, or the attribute num_classes of the model; None without."""
    modules = dict(model.named_modules())
    predictor = modules.get("roi_heads.box_predictor.cls_score")
    if isinstance(predictor, nn.Linear):
        return predictor.out_features
    head = modules.get("head.classification_head")
    stated = (
        getattr(head, "num_columns", None),
        getattr(head, "num_classes", None),
        getattr(model, "num_classes", None),
    )
    return next((int(number) for number in stated if isinstance(number, int)), None)


def _is_body(model: nn.Module, name: str) -> bool:
    """Tell whether a module of torchvision's detectors feeds every box."""
    modules = dict(model.named_modules())
    is_torchvision = type(model).__module__.startswith("torchvision.models.detection")
    # the first of SSDlite's two parts is a sequence; that of VGG's is a convolution
    return is_torchvision and name in modules and (name != _BODIES[1] or isinstance(modules[name], nn.Sequential))
