"""Handmade runs of every kind of outputs: each image with its label, its prediction and its explained classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from handmade import GRID, RunMaker
from reference.rows import explanation_row

from pipeline.data.sources.shards import Failure
from pipeline.explain.rows import ImageFacts, MethodFacts, Row, failure_row
from pipeline.storage.parts import Footer
from pipeline.storage.run_folder import PartName
from schemas.manifest import RunIdentity

ONLY = PartName(0, 0)


@dataclass(frozen=True)
class Case:
    """An image of a run.

    Attributes:
        label: the stored label.
        predicted, confidence: the most likely class; None for raw outputs.
        targets: rule, confidence and logit of each explained class; an image without any is a failure `no_target`.
        constant: methods whose map of the image is constant.
    """

    label: int | None
    predicted: int | None
    confidence: float | None
    targets: Mapping[int, tuple[str, float | None, float]]
    constant: Sequence[str] = ()


@dataclass(frozen=True)
class JudgedRun(RunMaker):
    """Writes a run of one chunk, image by image."""

    shards: Sequence[str] = ("a.tar",)
    kind: str = "softmax"
    rule: str = "predicted"
    independent: bool = False
    cases: Sequence[Case] = field(default_factory=tuple)

    @property
    def identity(self) -> RunIdentity:
        """Return the identity, with the kind of outputs as `camatlas explain` writes it."""
        known = {} if self.kind == "softmax" else {"outputs": self.kind}
        known |= {"independent": True} if self.independent else {}
        identity = super().identity
        return identity.model_copy(update={"model": identity.model | known, "targets": self.rule})

    def rows(self, part: PartName) -> list[Row]:
        """Return the rows of all images."""
        return [row for number, case in enumerate(self.cases) for row in self._rows(number, case)]

    def footer(self, part: PartName, run_id: str = "") -> Footer:
        """Return the footer of the only chunk."""
        return Footer(run_id or self.manifest.run_id, 0, 0, True, len(self.cases))

    def complete(self) -> "JudgedRun":
        """Write the run and return self."""
        self.owned().publish(ONLY)
        return self

    def _rows(self, number: int, case: Case) -> list[Row]:
        key = f"{number:03d}"
        if not case.targets:
            failed = failure_row(Failure(key, self.shards[0], "explain", "no_target", "none above"), 0)
            return [failed | {"label": case.label}]
        return [
            explanation_row(
                ImageFacts(key, self.shards[0], 0, 48, 64, case.label, case.predicted, case.confidence, target, *how),
                MethodFacts(method, "{}", "features"),
                np.arange(12, dtype=np.float32).reshape(GRID) * (method not in case.constant),
                dict.fromkeys(self.metrics, 0.5),
                "u8",
            )
            for target, how in case.targets.items()
            for method in self.methods
        ]


def sigmoid(logit: float) -> float:
    """Return the confidence of a logit."""
    return float(1 / (1 + np.exp(-logit)))


def binary_case(label: int | None, logit: float, target: int | None = None) -> Case:
    """Return an image of a model with one output for two classes; `target` is the predicted class if None."""
    predicted = int(logit > 0)
    target = predicted if target is None else target
    of_target = logit if target else -logit
    return Case(label, predicted, sigmoid(abs(logit)), {target: ("predicted", sigmoid(of_target), of_target)})


def listed_case(label: int | None, logits: Sequence[float]) -> Case:
    """Return an image whose classes are all explained, with independent labels."""
    best = int(np.argmax(logits))
    targets = {index: ("listed", sigmoid(logit), logit) for index, logit in enumerate(logits)}
    return Case(label, best, sigmoid(logits[best]), targets)
