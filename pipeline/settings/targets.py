"""Which classes of an image are explained.

Rules: `predicted`, `label`, `labels` (every label of the image), `{top: k}` (the k most likely classes),
`{classes: [...]}` (the same classes for every image), or a list of the first three. A class that several rules choose
is explained once, under the first of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from pipeline.errors import ConfigError
from pipeline.settings.run_file import Classes, TargetRule, Targets, TopTargets

if TYPE_CHECKING:
    from torch import Tensor

_ASSUMED_LABELS = 8
"""Labels per image that estimates of time and memory assume; images may have more."""


@dataclass(frozen=True)
class TargetRules:
    """The target rules of a run.

    Attributes:
        named: `predicted`, `label` and `labels`, in the order given.
        top: number of most likely classes; 0 without that rule.
        classes: class indices that are explained on every image.
    """

    named: tuple[TargetRule, ...] = ()
    top: int = 0
    classes: tuple[int, ...] = ()

    @classmethod
    def of(cls, targets: Targets) -> "TargetRules":
        """Build the rules that a run file states."""
        if isinstance(targets, TopTargets):
            return cls(top=targets.top)
        if isinstance(targets, Classes):
            return cls(classes=tuple(dict.fromkeys(targets.classes)))
        return cls((targets,)) if isinstance(targets, str) else cls(tuple(dict.fromkeys(targets)))

    @classmethod
    def parse(cls, text: str) -> "TargetRules":
        """Parse the output of `str`; raises ValueError for any other text."""
        word, _, rest = text.partition(" ")
        if word == "top":
            return cls(top=int(rest))
        if word == "classes":
            return cls(classes=tuple(map(int, rest.split(","))))
        named = tuple(rule for rule in text.split(",") if rule in get_args(TargetRule))
        if text != ",".join(named):
            raise ValueError(f"'{text}' is not a target rule")
        return cls(named)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return the rules as one line, as the manifest stores them."""
        if self.top:
            return f"top {self.top}"
        return f"classes {','.join(map(str, self.classes))}" if self.classes else ",".join(self.named)

    @property
    def least(self) -> int:
        """Return the fewest targets that an image can have."""
        return self.top or len(self.classes) or 1

    @property
    def most(self) -> int:
        """Return the most targets that an image has; `labels` has no bound, so a number is assumed for it."""
        return self.top or len(self.classes) or len(self.named) + (_ASSUMED_LABELS - 1) * ("labels" in self.named)

    def allow(self, targets: int) -> bool:
        """Tell whether an image can have this number of targets."""
        return self.least <= targets and (targets <= self.most or "labels" in self.named)

    def trouble(self, labels: Sequence[int]) -> str:
        """Say why an image with these labels cannot be explained; empty if it can."""
        if not labels and ("label" in self.named or "labels" in self.named):
            return f"no label, but targets: {self} needs one"
        if len(labels) > 1 and "label" in self.named:
            return f"{len(labels)} labels, but targets: {self} needs exactly one; targets: labels explains each"
        return ""

    def check(self, classes: int) -> None:
        """Refuse classes that the model does not have.

        Raises:
            ConfigError: there are more targets than classes, or a class index is too large.
        """
        wrong = [index for index in self.classes if index >= classes]
        if wrong:
            raise ConfigError.one("explain.targets", f"class {wrong[0]}, but the model has {classes} classes")
        if self.top > classes:
            raise ConfigError.one("explain.targets", f"top {self.top}, but the model has {classes} classes")

    def chosen(self, logits_IN: "Tensor", labels: Sequence[Sequence[int]]) -> "tuple[Tensor, Tensor, list[str]]":
        """Choose (image, class) pairs, image by image: indices of the images, classes, and the rule of each pair.

        Args:
            logits_IN: logits of each image.
            labels: ground-truth classes of each image.
        """
        import torch  # late: a run is verified on machines without it

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

    def _of_image(self, most_likely: list[int], labels: Sequence[int]) -> dict[int, str]:
        if self.top:
            return dict.fromkeys(most_likely, "top")
        if self.classes:
            return dict.fromkeys(self.classes, "listed")
        found: dict[int, str] = {}
        for rule in self.named:
            for target in most_likely[:1] if rule == "predicted" else labels:
                found.setdefault(target, "predicted" if rule == "predicted" else "label")
        return found
