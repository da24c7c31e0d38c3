"""Order of labels: finds labels that do not number the classes as the model does."""

from pipeline.audit.checked import Checked, Verdict, not_checked
from pipeline.audit.findings import Effect, Finding
from pipeline.audit.label_order import LabelOrder
from pipeline.audit.statistics import wilson
from pipeline.results.output_kind import OutputKind, label_naming
from pipeline.results.query import Run

NAME = "Labels in another order"
_PAIRS = """
SELECT label, predicted, count(*) AS images, sum(confidence) AS confidence FROM images
WHERE label IS NOT NULL AND predicted IS NOT NULL GROUP BY label, predicted
"""
_HOW = (
    "Labels and predictions of all rows were compared. Labels are in another order if most images of a label have the "
    "same prediction, which differs from label to label and is not the label itself. They have nothing to do with the "
    "model if a confident model is right only as often as by chance."
)


def label_order(run: Run) -> tuple[list[Finding], Checked]:
    """Return the finding about labels that number the classes in another order than the model, and its line."""
    kind, naming = OutputKind.of(run.manifest), label_naming(run.manifest)
    if naming is None:
        why = "its labels are independent" if kind.has_confidences else "raw outputs have no classes"
        return [], not_checked("label_order", NAME, "accuracy", why)
    order = _order(run)
    if not order.images:
        why = "no explained image has a label"
        return [], not_checked("label_order", NAME, "accuracy", why, "add data.labels and explain again")
    sentence = order.warning(naming)
    effect = Effect(
        "images that are predicted as labelled", order.right / order.images, *wilson(order.right, order.images),
        order.images,
    )  # fmt: skip
    verdict: Verdict = "found" if sentence else "not found" if order.is_enough() else "undecided"
    why, command = "", ""
    if verdict == "undecided":
        why, command = "too few images, or a model that is not sure of them", "explain more images"
    line = Checked("label_order", NAME, verdict, "accuracy", order.images, effect, why=why, command=command)
    return [_finding(sentence, effect)] if sentence else [], line


def _order(run: Run) -> LabelOrder:
    rows = run.arrow(_PAIRS, []).to_pylist()
    pairs = {(row["label"], row["predicted"]): row["images"] for row in rows}
    return LabelOrder(pairs, sum(row["confidence"] or 0.0 for row in rows))


def _finding(sentence: str, effect: Effect) -> Finding:
    what, _, advice = sentence.partition("; ")
    return Finding(
        "label_order", "", "all labels", "accuracy", "recorded", f"{what[:1].upper()}{what[1:]}.", effect, _HOW,
        f"{advice[:1].upper()}{advice[1:]}.",
    )  # fmt: skip
