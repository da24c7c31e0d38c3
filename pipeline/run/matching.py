"""Checks that the model fits the data and the methods of a run: its classes, its labels and its head."""

from collections.abc import Iterator, Mapping

from pipeline.cams import CamMethod
from pipeline.data.sources.annotations import Annotations
from pipeline.errors import ConfigError
from pipeline.model.zoo import LoadedModel

_TOLERATED = 0.01
"""Largest share of labels that are no class of the model; each such image becomes a failure row."""


def check_classes(annotations: Annotations, loaded: LoadedModel) -> None:
    """Raise ConfigError if the table of classes and the model have different numbers of classes."""
    named = len(annotations.classes.names)
    if named and named != loaded.classes:
        raise ConfigError.one(
            "data.classes",
            f"the table names {named} classes, but the model has {loaded.classes}",
            "give the table of the classes that the model was trained on",
        )


def check_labels(annotations: Annotations, loaded: LoadedModel) -> None:
    """Raise ConfigError if labels that are known before the images are read are mostly no classes of the model.

    Labels inside of tars and Parquet files are known only when these are read; a wrong one is a failure row.
    """
    if not loaded.outputs.has_confidences:
        return  # the label of a regression is a value
    indices = [index for index in _labels(annotations) if index is not None]
    wrong = [index for index in indices if not 0 <= index < loaded.classes]
    if len(wrong) > _TOLERATED * len(indices):
        raise ConfigError.one(
            "data.labels",
            f"{len(wrong)} of {len(indices)} labels are no class of the model, which has {loaded.classes} (0 to "
            f"{loaded.classes - 1}); for example {max(wrong)}",
            "give the labels that the model was trained on, or the model of these labels",
        )


def _labels(annotations: Annotations) -> Iterator[int | None]:
    for table in (annotations, *annotations.folders.values()):
        yield from (table.classes.index(text) for text in table.labels.values())


def check_heads(methods: Mapping[str, CamMethod], loaded: LoadedModel) -> None:
    """Raise ConfigError if a method needs a head that the model does not have."""
    wrong = [label for label, method in methods.items() if method.needs.linear_head and not loaded.linear_head]
    if wrong:
        raise ConfigError.one(
            "explain.methods",
            f"'{wrong[0]}' needs a head of global average pooling and one linear layer after '{loaded.layer}'",
            "use gradcam, which gives the same map where cam applies",
        )
