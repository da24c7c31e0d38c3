"""What a check may name: quantities of the run, and the metrics of its methods."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.audit.checks.grammar import Expression
from pipeline.audit.values import metric_labels
from pipeline.errors import ConfigError, nearest
from pipeline.results.leaderboard import MODEL_METRICS
from pipeline.results.query import Run
from schemas.explanation import is_curve

QUANTITIES: Mapping[str, str] = {
    "accuracy": "share of right predictions, among images of which that is known",
    "calibration_error": "expected calibration error over 15 bins of the confidence",
    "mean_confidence": "mean confidence of the predicted class",
    "images": "number of images",
    "explained": "number of images with a map",
    "labelled": "number of images with a label",
    "failures": "number of failure rows",
    "failure_rate": "share of images and damaged places with a failure row",
    "findings": "number of findings of the report",
}
"""Quantities that stand without a method."""

DEGENERATE = "degenerate"
"""The share of constant maps of a method."""

_RULES = "SELECT DISTINCT method, target_rule FROM explanations WHERE method IS NOT NULL"


@dataclass(frozen=True)
class Quantity:
    """A number that can be measured on a run.

    Attributes:
        name: of the quantity, or of the metric in the run.
        method: whose maps are measured; None for what does not depend on a method.
        rule: the target rule of the maps; None for all.
    """

    name: str
    method: str | None = None
    rule: str | None = None

    @property
    def is_metric(self) -> bool:
        """Return whether it is a mean over maps."""
        return self.name not in QUANTITIES


class Names:
    """The names that checks of a run may use."""

    def __init__(self, run: Run) -> None:
        self.metrics = metric_labels(run)
        self.of_model = [name for name, fields in run.metrics.items() if fields["name"] in MODEL_METRICS]
        self.methods = list(run.manifest.identity.methods)
        self.curves = [name for name in run.metrics if is_curve(name)]
        self.rules: dict[str, list[str]] = {}
        for row in run.arrow(_RULES).to_pylist():
            self.rules.setdefault(row["method"], []).append(row["target_rule"])

    def quantity(self, expression: Expression, where: str) -> Quantity:
        """Find what an expression names.

        Raises:
            ConfigError: the run has no such quantity, metric, method or target rule.
        """
        name = expression.name
        if name in QUANTITIES and expression.of is None:
            return Quantity(name)
        if name in QUANTITIES:
            raise ConfigError.one(where, f"'{name}' stands without brackets", f"write {name} {expression.bound}")
        if name != DEGENERATE and name not in self.metrics:
            raise ConfigError.one(where, *self._unknown(name))
        if expression.of is None and name in self.of_model:
            return Quantity(name)
        if expression.of is None:
            example = f"{name}({self.methods[0]}) {expression.bound}"
            raise ConfigError.one(where, f"'{name}' needs a method", f"for example {example}")
        return self._of_method(name, expression.of, where)

    def _unknown(self, name: str) -> tuple[str, str]:
        if name in self.curves:
            return f"'{name}' is a curve, not a number", "use sql"
        if name.startswith("top") and name.endswith("_accuracy"):
            return f"unknown '{name}'", "the rows hold the predicted class alone: use accuracy, or sql"
        return f"the run has no '{name}'", nearest(name, [*QUANTITIES, DEGENERATE, *self.metrics])

    def _of_method(self, name: str, of: str, where: str) -> Quantity:
        """Find the method, and the target rule behind the last comma, where the whole is not a method."""
        method, comma, rule = of.rpartition(",")
        if of in self.methods or not comma:
            method, rule = of, ""
        method, rule = method.strip(), rule.strip()
        if method not in self.methods:
            raise ConfigError.one(where, f"the run has no method '{method}'", nearest(method, self.methods))
        rules = sorted(self.rules.get(method, []))
        if rule and rule not in rules:
            raise ConfigError.one(where, f"'{method}' has no maps of the target rule '{rule}'", nearest(rule, rules))
        if not rule and len(rules) > 1:
            hint = f"name one: {' or '.join(f'{name}({method}, {one})' for one in rules)}"
            raise ConfigError.one(where, f"'{method}' has maps of {len(rules)} target rules", hint)
        return Quantity(name, method, rule or None)
