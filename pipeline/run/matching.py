"""Checks that the model fits the data and the methods of a run: its classes, its labels and its head."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from pipeline.cams import CamMethod
from pipeline.data.account import LabelAccount
from pipeline.data.account_check import check_matches
from pipeline.data.account_files import counted
from pipeline.data.known_labels import known_labels
from pipeline.data.sources import Shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.no_class import UNKNOWN
from pipeline.errors import ConfigError, Mistake, Mistakes
from pipeline.explain.requirements import check_attention
from pipeline.metrics import Metric, reads_boxes, reads_parts
from pipeline.model.attention_trial import find_attention
from pipeline.model.tasks import Similarity, ZeroShot
from pipeline.model.zoo import LoadedModel
from pipeline.settings.data import DataConfig
from pipeline.settings.run_file import RunConfig
from pipeline.settings.targets import TargetRules

_TOLERATED = 0.01
"""Largest share of labels that are no class of the model; each such image becomes a failure row."""

_CLEARLY = 3
"""Fewest images whose labels are no class before a run is refused, where only the first images are known."""
_NAME_CLASSES = "name the table of these classes in data.classes"
_ANOTHER_TABLE = "correct the labels, or name the table that has them in data.classes"
_OR_COLUMN = ", and the column of labels in data.columns.label"
_NAME_LABELS = "name the file in data.labels, or explain targets: predicted"


def check_classes(annotations: Annotations, loaded: LoadedModel) -> None:
    """Raise ConfigError if the table of classes has another number of classes than the model, or another order."""
    table = annotations.classes
    named = len(table.names)
    if named and named != loaded.classes:
        raise ConfigError.one(
            "data.classes",
            f"the table names {named} classes, but the model has {loaded.classes}",
            "give the table of the classes that the model was trained on",
        )
    for index, name in enumerate(loaded.class_names or () if named else ()):
        other = table.named(name)
        if other not in (None, index):
            raise ConfigError.one(
                table.source,
                f"it contradicts the model, which calls class {index} '{name}': it calls class {other} so, and class "
                f"{index} '{table.names[index]}'",
                "leave it out, or give the table of the classes that the model was trained on",
            )


def check_names(class_names: tuple[str, ...], loaded: LoadedModel) -> None:
    """Raise ConfigError if folders or tables name the classes in another way than the embeddings do."""
    names, task = loaded.class_names, loaded.outputs.task
    if isinstance(task, ZeroShot) and names and class_names and names != class_names:
        one, other = next(pair for pair in itertools.zip_longest(class_names, names) if pair[0] != pair[1])
        place = class_names.index(one) if one else len(class_names)
        raise ConfigError.one(
            task.where,
            f"the data names class {place} '{one}', the embeddings '{other}'",
            "give the table of the classes in data.classes, with these names in the order of the labels",
        )


def names_of(class_names: tuple[str, ...], loaded: LoadedModel) -> tuple[str, ...]:
    """Return the names of a run's outputs: those of embeddings, else those of the data, else those of the model."""
    embedded = loaded.class_names if isinstance(loaded.outputs.task, Similarity) else None
    return embedded or class_names or loaded.class_names or ()


def check_labels(annotations: Annotations, loaded: LoadedModel, shards: Iterable[Shard] = ()) -> None:
    """Raise ConfigError if labels that are known before the images are read are mostly no classes of the model.

    Labels inside of tars and Parquet files are known only when these are read; see `check_first_labels`.
    """
    of_images = ((table.index(text) for text in texts) for table, texts in known_labels(annotations, shards))
    found = Counter(index for indices in of_images for index in indices if index is not None)
    _refuse_no_classes("data.labels", found, loaded)


def check_first_labels(account: LabelAccount, loaded: LoadedModel) -> tuple[str, ...]:
    """Compare the labels of the first images in shards with the classes of the model, and return notes.

    Raises:
        ConfigError: most of them are no class of the model, or they run from 1 to the number of classes. Others may be
            exceptions, which become failure rows.
    """
    inside = account.inside
    found = Counter({one.index: one.images for one in inside.classes}) if inside else Counter[int]()
    wrong = _no_classes(found, loaded)
    if inside is None or not wrong:
        return ()
    seen = counted(inside.images - inside.blind, "image")
    looked = f"; only the first {seen} in {inside.shards:,} of {counted(inside.of, 'shard')} were looked at"
    many = wrong.total() >= _CLEARLY and wrong.total() > found.total() / 2
    if many or _counts_from_one(found, loaded):
        _refuse_no_classes("data.shards", found, loaded, looked)
    return (f"{_what(wrong, found, loaded)}{looked}; images with such a label fail, and become failure rows",)


def _no_classes(found: Counter[int], loaded: LoadedModel) -> Counter[int]:
    """Return the labels that are no class of the model; none for a regression, whose label is a value."""
    if not loaded.outputs.has_confidences:
        return Counter()
    return Counter({index: images for index, images in found.items() if not 0 <= index < loaded.classes})


def _what(wrong: Counter[int], found: Counter[int], loaded: LoadedModel) -> str:
    return (
        f"{wrong.total()} of {found.total()} labels are no class of the model, which has {loaded.classes} "
        f"(0 to {loaded.classes - 1}); for example {max(wrong)}"
    )


def _refuse_no_classes(where: str, found: Counter[int], loaded: LoadedModel, looked: str = "") -> None:
    """Raise ConfigError if more labels than are tolerated are no class of the model; `looked` says which were read."""
    wrong = _no_classes(found, loaded)
    if wrong.total() > _TOLERATED * found.total():
        hint = "give the labels that the model was trained on, or the model of these labels"
        if _counts_from_one(found, loaded):
            hint = (
                f"the labels run from 1 to {loaded.classes}, and none is 0: if they count from 1, subtract 1 from each"
            )
        raise ConfigError.one(where, f"{_what(wrong, found, loaded)}{looked}", hint)


def _counts_from_one(found: Counter[int], loaded: LoadedModel) -> bool:
    """Return whether the labels reach from 1 to the number of classes, which is none of them."""
    return bool(found) and (min(found), max(found)) == (1, loaded.classes)


def check_account(account: LabelAccount, config: RunConfig, metrics: Mapping[str, Metric], found: Mistakes) -> None:
    """Collect the mistakes that make labels or boxes of a run useless, before any image is read."""
    with found.collecting():
        check_matches(account, config.data)
    found.found.extend(_labels_of_no_class(account))
    found.found.extend(_missing(account, TargetRules.of(config.explain.targets), metrics))


def _labels_of_no_class(account: LabelAccount) -> Iterator[Mistake]:
    labels, inside = account.labelled + account.unreadable, account.inside
    hint = _ANOTHER_TABLE if account.source else _NAME_CLASSES
    if account.unreadable > labels / 2:
        example = account.unreadable_example
        what = f"neither a class index nor a known class, such as '{example}'"
        if account.unreadable_why:
            what = f"no class; for example, {account.unreadable_why}"
        is_known_why = account.unreadable_why and UNKNOWN not in account.unreadable_why
        what = f"{account.unreadable} of {labels} labels are {what}"
        yield Mistake("data.labels", what, "" if is_known_why else hint)
    if inside and inside.wrong >= _CLEARLY and not inside.labels:
        place = f"{inside.wrong} images at the beginning of {counted(inside.shards, 'shard')}"
        what = f"the labels of {place} are wrong: {inside.example}"
        yield Mistake("data.shards", what, f"{hint}{_OR_COLUMN}" if UNKNOWN in inside.example else "")


def wrong_parts(
    account: LabelAccount, data: DataConfig, metrics: Mapping[str, Metric], weights: str
) -> Iterator[Mistake]:
    """Yield why metrics of parts cannot apply: there are no parts, or they are wrong, or of another model."""
    of_parts = [label for label, metric in metrics.items() if reads_parts(metric)]
    if not of_parts:
        return
    where, inside = "explain.metrics", account.inside
    need = f"{', '.join(of_parts)} need{'s' if len(of_parts) == 1 else ''} the values of parts"
    hint = "take shards with the members parts.png and .json (field parts), or leave them out"
    if data.decoder is not None:
        yield Mistake(where, f"{need}, which images of a decoder (data.decoder) do not have", "leave them out")
    elif not account.has_parts:
        yield Mistake(where, f"{need}, but no image has any", hint)
    elif inside and inside.wrong_parts >= _CLEARLY and not inside.parts:
        place = f"{inside.wrong_parts} images at the beginning of {counted(inside.shards, 'shard')}"
        yield Mistake("data.shards", f"the parts of {place} are wrong: {inside.parts_example}", "correct the shards")
    others = [one for one in (inside.weights if inside else ()) if one != weights]
    if others:
        what = f"{need}, but the values of the parts are those of another model, with the weights {others[0]}"
        yield Mistake(where, what, f"take that model, or parts of this one, with the weights {weights}")


def _missing(account: LabelAccount, rules: TargetRules, metrics: Mapping[str, Metric]) -> Iterator[Mistake]:
    """Yield what needs labels or boxes, where there are none at all."""
    if rules.need_label and not account.has_labels:
        yield Mistake("explain.targets", f"{rules}, but no image has a label: {_reason(account)}", _NAME_LABELS)
    of_boxes = [label for label, metric in metrics.items() if reads_boxes(metric)]
    if of_boxes and not account.has_boxes:
        need = f"{', '.join(of_boxes)} need{'s' if len(of_boxes) == 1 else ''} boxes"
        yield Mistake(
            "explain.metrics", f"{need}, but no image has any", "name the file in data.boxes, or leave them out"
        )


def _reason(account: LabelAccount) -> str:
    """Say where labels were sought."""
    if account.folders:
        return account.folders[0]
    return account.inside.line() if account.inside else "there is no label file, and no folder is a class"


def with_attention(methods: Mapping[str, CamMethod], loaded: LoadedModel) -> LoadedModel:
    """Find out what the attention of the model means, if a method reads it; raises ConfigError if it cannot be read."""
    layouts = loaded.layouts
    view = layouts.by_layer[loaded.layer]
    find = partial(find_attention, loaded.model, loaded.outputs, layouts.shape, view)
    return replace(loaded, layouts=replace(layouts, attention=check_attention(methods, find)))


def check_heads(methods: Mapping[str, CamMethod], loaded: LoadedModel) -> None:
    """Raise ConfigError if a method needs a head that the model does not have."""
    wrong = [label for label, method in methods.items() if method.needs.linear_head and not loaded.linear_head]
    if wrong:
        raise ConfigError.one(
            "explain.methods",
            f"'{wrong[0]}' needs a head of global average pooling and one linear layer after '{loaded.layer}'",
            "use gradcam, which gives the same map where cam applies",
        )
