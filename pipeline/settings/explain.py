"""The section `explain` of a run file: which classes to explain, with which methods, and which metrics to compute."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipeline.settings.data import Positive, Section

TargetRule = Literal["predicted", "label", "labels"]
Spec = str | dict[str, Any]


class TopTargets(Section):
    """The `top` most likely classes of each image."""

    top: Positive
    """Number of classes."""


class AboveTargets(Section):
    """Every class whose confidence is above a threshold, for models with independent labels."""

    above: Annotated[float, Field(gt=0, lt=1)]
    """The threshold."""


class Classes(Section):
    """The same classes for every image."""

    classes: Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=1)]
    """Indices of the classes."""


def _kind_of_targets(given: object) -> str:
    """Tell which form was meant, so that only the mistakes of that form are reported."""
    if isinstance(given, TopTargets) or (isinstance(given, dict) and "top" in given):
        return "most_likely"
    if isinstance(given, AboveTargets) or (isinstance(given, dict) and "above" in given):
        return "above"
    if isinstance(given, (Classes, dict)):
        return "listed"
    return "list" if isinstance(given, (list, tuple)) else "rule"


Targets = Annotated[
    Annotated[TargetRule, Tag("rule")]
    | Annotated[list[TargetRule], Field(min_length=1), Tag("list")]
    | Annotated[TopTargets, Tag("most_likely")]
    | Annotated[AboveTargets, Tag("above")]
    | Annotated[Classes, Tag("listed")],
    Discriminator(_kind_of_targets),
]


class ExplainConfig(Section):
    """Which classes to explain, with which methods, and which metrics to compute."""

    targets: Targets = "predicted"
    """Classes to explain: predicted, label, labels (every one), [predicted, label], {top: 5}, {above: 0.5} or
    {classes: [207]}."""
    methods: list[Spec] = Field(default=["gradcam"], min_length=1)
    """Names of methods, or {name: {parameter: value}}; `camatlas methods` lists them. Your own as
    package.module:Class."""
    metrics: list[Spec] = Field(default=[])
    """Names of metrics, or {name: {parameter: value}}; `camatlas metrics` lists them. Your own as
    package.module:Class."""
    seed: Annotated[int, Field(strict=True)] = 0
    """Seed of all random numbers."""
