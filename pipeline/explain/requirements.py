"""Refuses methods, metrics and targets that need something which a model's outputs do not have."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.cams import CamMethod
from pipeline.errors import ConfigError, Mistake, Mistakes
from pipeline.metrics import Metric
from pipeline.metrics.base import reads_confidences
from pipeline.model.outputs import Outputs
from pipeline.settings.registry import parameters
from pipeline.settings.run_file import AboveTargets, Classes, Targets, TopTargets
from pipeline.settings.targets import TargetRules


def check_outputs(
    outputs: Outputs, classes: int, methods: Mapping[str, CamMethod], metrics: Mapping[str, Metric], targets: Targets
) -> None:
    """Check that the outputs have what methods, metrics and targets need.

    Raises:
        ConfigError: all mistakes at once, with the names of methods and metrics.
    """
    found = Mistakes()
    with found.collecting():
        check_confidences(outputs, methods, metrics)
    with found.collecting():
        _raise(_targets(outputs, classes, targets))
    found.raise_if_any()


def check_confidences(outputs: Outputs, methods: Mapping[str, CamMethod], metrics: Mapping[str, Metric]) -> None:
    """Check that the outputs have the confidences that methods and metrics read; raises ConfigError."""
    _raise([*_confidences(outputs, methods, metrics), *_softmax(outputs, methods)])


def check_stages(methods: Mapping[str, CamMethod], stages: Sequence[str]) -> None:
    """Check that methods that combine layers have more than one; raises ConfigError."""
    wrong = [name for name, method in methods.items() if method.needs.stages]
    if wrong and len(stages) == 1:
        verb = "combines" if len(wrong) == 1 else "combine"
        raise ConfigError.one(
            "explain.methods",
            f"{_names(wrong)} {verb} layers of several resolutions, but '{stages[0]}' is the only one",
            "name several layers in model.stages, or choose other methods",
        )


def _raise(mistakes: Iterable[Mistake]) -> None:
    found = list(mistakes)
    if found:
        raise ConfigError(found)


def _confidences(
    outputs: Outputs, methods: Mapping[str, CamMethod], metrics: Mapping[str, Metric]
) -> Iterator[Mistake]:
    if outputs.has_confidences:
        return
    by_method = [name for name, method in methods.items() if method.needs.confidences]
    if by_method:
        scored = [name for name in by_method if "score" in parameters(methods[name])]
        yield Mistake("explain.methods", _no_confidence(by_method), _use_logits(scored))
    by_metric = [name for name, metric in metrics.items() if reads_confidences(metric)]
    if by_metric:
        scored = [name for name in by_metric if "score" in parameters(metrics[name])]
        yield Mistake("explain.metrics", _no_confidence(by_metric), _use_logits(scored))


def _no_confidence(names: list[str]) -> str:
    return f"{_names(names)} need{'s' * (len(names) == 1)} confidences, which raw outputs do not have"


def _use_logits(scored: list[str]) -> str:
    """Advise to read logits where methods or metrics can."""
    return f"{_names(scored)} can read logits: score: logit" if scored else "choose others"


def _softmax(outputs: Outputs, methods: Mapping[str, CamMethod]) -> Iterator[Mistake]:
    wrong = [name for name, method in methods.items() if method.needs.one_true_class]
    detects = outputs.task is not None and outputs.task.may_miss
    if wrong and (detects or outputs.kind not in ("softmax", "probabilities")):
        of = "scores of a detector" if detects else f"outputs: {outputs.kind}"
        yield Mistake(
            "explain.methods",
            f"{_names(wrong)} compute a softmax over the classes, which {of} do not have",
            "choose another f",
        )


def _targets(outputs: Outputs, classes: int, targets: Targets) -> Iterator[Mistake]:
    detects = outputs.task is not None and outputs.task.may_miss
    if isinstance(targets, AboveTargets) and outputs.kind != "sigmoid" and not detects:
        yield Mistake(
            "explain.targets",
            f"above needs outputs: sigmoid, but they are {outputs.kind}",
            "{top: 2}" if outputs.has_confidences else "{classes: [0]}",
        )
    if outputs.has_confidences or isinstance(targets, Classes):
        return
    if not isinstance(targets, TopTargets | AboveTargets) and {"label", "labels"} & set(TargetRules.of(targets).named):
        yield Mistake("explain.targets", "raw outputs have no classes that a label could name", "{classes: [0]}")
    elif classes > 1:
        yield Mistake(
            "explain.targets",
            f"raw outputs have no predicted class, and the model has {classes} outputs",
            "{classes: [0]} explains the first one",
        )


def _names(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
