"""Which classes of an image are explained.

Rules: `predicted`, `label`, `labels` (every label of the image), `{top: k}` (the k most likely classes),
`{above: t}` (every class whose confidence is above t), `{classes: [...]}` (the same classes for every image), or a list
of the first three. A class that several rules choose
is explained once, under the first of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from pipeline.errors import ConfigError
from pipeline.settings.explain import AboveTargets, Classes, TargetRule, Targets, TopTargets

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
        above: least confidence of the classes that are explained, exclusive; 0 without that rule.
        classes: class indices that are explained on every image.
    """

    named: tuple[TargetRule, ...] = ()
    top: int = 0
    above: float = 0.0
    classes: tuple[int, ...] = ()

    @classmethod
    def of(cls, targets: Targets) -> "TargetRules":
        """Build the rules that a run file states."""
        if isinstance(targets, TopTargets):
            return cls(top=targets.top)
        if isinstance(targets, AboveTargets):
            return cls(above=targets.above)
        if isinstance(targets, Classes):
            return cls(classes=tuple(dict.fromkeys(targets.classes)))
        return cls((targets,)) if isinstance(targets, str) else cls(tuple(dict.fromkeys(targets)))

    @classmethod
    def parse(cls, text: str) -> "TargetRules":
        """Parse the output of `str`; raises ValueError for any other text."""
        word, _, rest = text.partition(" ")
        if word == "top":
            return cls(top=int(rest))
        if word == "above":
            return cls(above=float(rest))
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
        if self.above:
            return f"above {self.above!r}"
        return f"classes {','.join(map(str, self.classes))}" if self.classes else ",".join(self.named)

    @property
    def least(self) -> int:
        """Return the fewest targets that an image can have."""
        return self.top or len(self.classes) or 1

    @property
    def most(self) -> int:
        """Return the most targets that an image has; `labels` and `above` have no bound, so a number is assumed."""
        rules = len(self.named) + (self.above > 0)
        return self.top or len(self.classes) or rules + (_ASSUMED_LABELS - 1) * self.is_unbounded

    @property
    def is_unbounded(self) -> bool:
        """Tell whether the image decides how many targets it has."""
        return "labels" in self.named or self.above > 0

    @property
    def need_label(self) -> bool:
        """Tell whether an image must have a label."""
        return "label" in self.named or "labels" in self.named

    def allow(self, targets: int) -> bool:
        """Tell whether an image can have this number of targets."""
        return self.least <= targets and (targets <= self.most or self.is_unbounded)

    def trouble(self, labels: Sequence[int]) -> str:
        """Say why an image with these labels cannot be explained; empty if it can."""
        if not labels and self.need_label:
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

    def chosen(
        self, logits_IN: "Tensor", labels: Sequence[Sequence[int]], confidences_IN: "Tensor | None" = None
    ) -> "tuple[Tensor, Tensor, list[str]]":
        """Choose (image, class) pairs, image by image: indices of the images, classes, and the rule of each pair.

        Args:
            logits_IN: logits of each image.
            labels: ground-truth classes of each image.
            confidences_IN: confidences of each image, which the rule `above` needs.
        """
        import torch  # late: a run is verified on machines without it

        order_IN = logits_IN.argsort(dim=1, descending=True, stable=True)
        top_IT = order_IN[:, : max(1, self.top)].tolist()
        if self.above:
            assert confidences_IN is not None
            above_IN = confidences_IN.gather(1, order_IN) > self.above
            top_IT = [order_N[above_N].tolist() for order_N, above_N in zip(order_IN, above_IN, strict=True)]
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
        if self.above:
            return dict.fromkeys(most_likely, "above")
        if self.classes:
            return dict.fromkeys(self.classes, "listed")
        found: dict[int, str] = {}
        for rule in self.named:
            for target in most_likely[:1] if rule == "predicted" else labels:
                found.setdefault(target, "predicted" if rule == "predicted" else "label")
        return found
