"""Says in one sentence each why sections of the report are not there for some kinds of outputs."""

from pipeline.results.output_kind import OutputKind

_RAW = {
    "accuracy": "Raw outputs have no classes, so that no prediction is right or wrong, and no confidence that could be "
    "calibrated.",
    "classes": "Raw outputs have no classes by which images could be grouped.",
    "background": "Raw outputs have neither a confidence that could change without the object, nor a predicted class "
    "that properties of images could belong to.",
    "strategies": "Raw outputs have no classes whose images could be clustered.",
    "compare": "Raw outputs have no predicted class, so that predictions are not compared.",
    "interventions": "Patches, colours and surroundings: raw outputs have no predicted class that another image could "
    "change.",
}
_INDEPENDENT = {
    "confusions": "Labels are independent: a predicted class does not take the place of another, so that there are no "
    "confusions.",
}


def absent(kind: OutputKind) -> dict[str, str]:
    """Return the reasons by section; empty where exactly one class is true of an image."""
    if not kind.has_confidences:
        return dict(_RAW)
    return dict(_INDEPENDENT) if kind.is_independent else {}
