"""Reads from a manifest what kind of outputs the model of a run has, and so what its rows say of right and wrong.

Here is no torch: a run is queried on machines without it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.manifest import RunManifest

_RIGHT = "any_value(predicted = label)"
_RIGHT_OF_LABELS = f"CASE WHEN any_value(label) IS NOT NULL THEN {_RIGHT} ELSE {{listed}} END"
_AMONG_TARGETS = "bool_or(target_rule = 'label' AND target = predicted)"
UNKNOWN = "NULL::BOOLEAN"


@dataclass(frozen=True)
class OutputKind:
    """What the outputs of a run's model mean.

    Attributes:
        kind: softmax, sigmoid, binary, probabilities or raw.
        is_independent: whether the labels are independent, so that several or none can be true of an image.
        targets: the rules by which the run chose classes, as the manifest states them.
    """

    kind: str
    is_independent: bool
    targets: str

    @classmethod
    def of(cls, manifest: RunManifest) -> "OutputKind":
        """Read the kind from a manifest; one that does not name it is of a run with softmax."""
        model = manifest.identity.model
        kind = str(model.get("outputs", "softmax"))
        independent = kind == "sigmoid" or bool(model.get("independent", False))
        return cls(kind, independent, manifest.identity.targets)

    @property
    def has_confidences(self) -> bool:
        """Whether the rows hold a predicted class and confidences."""
        return self.kind != "raw"

    @property
    def stores_all_labels(self) -> bool:
        """Whether the targets with the rule `label` are all labels of an explained image.

        A class that an earlier rule chose has that rule. So after `predicted` it is not known whether the predicted
        class is a label, too.
        """
        return self.targets.split(",")[0] == "labels"

    def correct_sql(self) -> str:
        """Return the SQL that tells, over the rows of one image, whether its prediction is right.

        Where exactly one class is true, the predicted class must be the label. Where labels are independent, it must be
        one of them: they are known if the image has exactly one, or if all of them were explained. Else, and for raw
        outputs, the result is NULL.
        """
        if not self.has_confidences:
            return UNKNOWN
        if not self.is_independent:
            return _RIGHT
        return _RIGHT_OF_LABELS.format(listed=_AMONG_TARGETS if self.stores_all_labels else UNKNOWN)


def label_naming(manifest: RunManifest) -> Callable[[int], str] | None:
    """Return what names the classes of a run whose images have one label and one prediction; None for other runs."""
    kind = OutputKind.of(manifest)
    return manifest.class_name if kind.has_confidences and not kind.is_independent else None
