"""Which classes of an image are explained.

Rules: `predicted`, `label`, `labels` (every label of the image), `{top: k}` (the k likeliest classes),
`{classes: [...]}` (the same ones for every image), or a list of the first three. A class that several rules name is
explained once, under the first of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.settings.run_file import Classes, TargetRule, Targets, TopTargets

_RECKONED_LABELS = 8
"""Labels of an image that time and memory are reckoned with; images may have more."""


@dataclass(frozen=True)
class TargetRules:
    """The rules of a run.

    Attributes:
        named: `predicted`, `label` and `labels`, in the order given.
        top: number of likeliest classes; 0 without that rule.
        classes: class indices of every image.
    """

    named: tuple[TargetRule, ...] = ()
    top: int = 0
    classes: tuple[int, ...] = ()

    @classmethod
    def of(cls, targets: Targets) -> "TargetRules":
        """Read the run file's words."""
        if isinstance(targets, TopTargets):
            return cls(top=targets.top)
        if isinstance(targets, Classes):
            return cls(classes=tuple(dict.fromkeys(targets.classes)))
        return cls((targets,)) if isinstance(targets, str) else cls(tuple(dict.fromkeys(targets)))

    @classmethod
    def parse(cls, text: str) -> "TargetRules":
        """Read what `str` wrote; raises ValueError when it is something else."""
        word, _, rest = text.partition(" ")
        if word == "top":
            return cls(top=int(rest))
        if word == "classes":
            return cls(classes=tuple(map(int, rest.split(","))))
        named = tuple(rule for rule in text.split(",") if rule in get_args(TargetRule))
        if text != ",".join(named):
            raise ValueError(f"'{text}' names no targets")
        return cls(named)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """One line, as the manifest keeps it."""
        if self.top:
            return f"top {self.top}"
        return f"classes {','.join(map(str, self.classes))}" if self.classes else ",".join(self.named)

    @property
    def least(self) -> int:
        """Fewest targets that an image can have."""
        return self.top or len(self.classes) or 1

    @property
    def most(self) -> int:
        """Most targets that an image has; under the rule `labels`, which has no bound, as many as are reckoned with."""
        return self.top or len(self.classes) or len(self.named) + (_RECKONED_LABELS - 1) * ("labels" in self.named)

    def allow(self, targets: int) -> bool:
        """Tell whether an image can have so many targets."""
        return self.least <= targets and (targets <= self.most or "labels" in self.named)

    def trouble(self, labels: Sequence[int]) -> str:
        """Say why an image with these labels cannot be explained; empty where it can."""
        if not labels and ("label" in self.named or "labels" in self.named):
            return f"no label, and targets: {self} needs one"
        if len(labels) > 1 and "label" in self.named:
            return f"{len(labels)} labels, and targets: {self} needs one; labels explains each"
        return ""

    def check(self, classes: int) -> None:
        """Refuse classes that the model does not know.

        Raises:
            ConfigError: there are more targets than classes, or a class index is too large.
        """
        wrong = [index for index in self.classes if index >= classes]
        if wrong:
            raise ConfigError.one("explain.targets", f"class {wrong[0]}, the model knows {classes} classes")
        if self.top > classes:
            raise ConfigError.one("explain.targets", f"top {self.top} of a model that knows {classes} classes")

    def chosen(self, logits_IN: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, list[str]]:
        """Choose (image, class) pairs, image by image: indices of the images, classes, and the rule of each.

        Args:
            logits_IN: the answers of the model.
            labels: what each image shows.
        """
        top_IT = logits_IN.argsort(dim=1, descending=True, stable=True)[:, : max(1, self.top)].tolist()
        pairs = [
            (image, target, rule)
            for image, own in enumerate(labels)
            for target, rule in self._of_image(top_IT[image], own).items()
        ]
        images_B, targets_B = ([pair[i] for pair in pairs] for i in range(2))
        device = logits_IN.device
        return (
            torch.tensor(images_B, dtype=torch.long, device=device),
            torch.tensor(targets_B, dtype=torch.long, device=device),
            [rule for _, _, rule in pairs],
        )

    def _of_image(self, likeliest: list[int], labels: Sequence[int]) -> dict[int, str]:
        if self.top:
            return dict.fromkeys(likeliest, "top")
        if self.classes:
            return dict.fromkeys(self.classes, "listed")
        found: dict[int, str] = {}
        for rule in self.named:
            for target in likeliest[:1] if rule == "predicted" else labels:
                found.setdefault(target, "predicted" if rule == "predicted" else "label")
        return found
