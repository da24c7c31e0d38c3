"""Refuses methods, metrics and targets that need something which a model's outputs do not have."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch

from pipeline.cams import Adapter, CamMethod
from pipeline.cams.stored import Stored
from pipeline.errors import ConfigError, LayerError, Mistake, Mistakes
from pipeline.metrics import Metric
from pipeline.metrics.base import reads_confidences
from pipeline.model.attention_trial import TokenAttention
from pipeline.model.evidence import Evidence
from pipeline.model.outputs import Outputs
from pipeline.model.probe import Probe
from pipeline.model.trial import random_images
from pipeline.settings.explain import AboveTargets, Classes, Targets, TopTargets
from pipeline.settings.registry import parameters
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


def check_attention(methods: Mapping[str, CamMethod], find: Callable[[], TokenAttention]) -> TokenAttention | None:
    """Check that the model has the attention that methods read, and return what it means; None if none reads any.

    Args:
        methods: the methods.
        find: returns what the attention of the model means, or raises LayerError.

    Raises:
        ConfigError: there is none, or it cannot be read, with the names of the methods.
    """
    wanted = [name for name, method in methods.items() if method.needs.attention]
    if not wanted:
        return None
    try:
        known = find()
    except LayerError as error:
        what = f"{_names(wanted)} need{'s' * (len(wanted) == 1)} attention between the tokens of an image, but {error}"
        raise ConfigError.one("explain.methods", what, "choose other methods") from None
    split = [name for name in wanted if methods[name].needs.readouts]
    if split and not known.is_read_last:
        raise ConfigError.one(
            "explain.methods",
            f"{_names(split)} read{'s' * (len(split) == 1)} a score from the tokens of each layer, but the logits of "
            f"the model depend on more than the output of '{known.blocks[-1]}'",
            "choose other methods",
        )
    return known


def check_adapters(
    methods: Mapping[str, CamMethod], make_probe: Callable[[], Probe], shape: tuple[int, int, int]
) -> None:
    """Check that the methods of others suit the model, by a trial on one random image.

    Args:
        methods: by their names in the run.
        make_probe: makes a probe of the model for the trial; called if there is something to try.
        shape: (C, H, W) of the images.

    Raises:
        ConfigError: all mistakes at once.
    """
    adapters = {label: method for label, method in methods.items() if isinstance(method, Adapter)}
    if not adapters:
        return
    probe = make_probe()
    pixels_1CHW = random_images(shape)[:1].to(probe.device)
    with torch.inference_mode(False):
        evidence = probe.capture(pixels_1CHW, gradients=False, keys=("trial",))
        problems = {label: adapter.problem(evidence, probe) for label, adapter in adapters.items()}
    _raise(Mistake("explain.methods", f"'{label}': {problem}") for label, problem in problems.items() if problem)


def check_stored(methods: Mapping[str, CamMethod], evidence: Evidence, *, has_keys: bool) -> None:
    """Check that every row of a batch has a stored map, and that its keys name the images; raises ConfigError."""
    for label, method in methods.items():
        if not isinstance(method, Stored):
            continue
        if not has_keys:
            raise ConfigError.one("explain.methods", f"'{label}' finds its maps by key", "pass keys, one per image")
        for key, target in zip(evidence.keys, evidence.targets_B.tolist(), strict=True):
            if reason := method.failure(key, target):
                raise ConfigError.one("explain.methods", f"'{label}': image '{key}': {reason}", "leave out the image")


def check_redrawn(methods: Mapping[str, CamMethod], metrics: Mapping[str, Metric]) -> None:
    """Check that no metric needs maps of changed images where a method has maps of the images alone."""
    fixed = [label for label, method in methods.items() if isinstance(method, Adapter) and not method.redraws]
    wrong = [label for label, metric in metrics.items() if metric.redrawn_maps()]
    if fixed and wrong:
        raise ConfigError.one(
            "explain.metrics",
            f"{_names(wrong)} compute{'s' * (len(wrong) == 1)} maps of changed images, which {_names(fixed)} cannot",
            "leave them out, or the stored maps",
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
