"""The names and the target classes that `explain` is given, and whether they fit the model.

Legend: B images, T targets of one image, N classes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from pipeline.data.sources.classes import shared_names
from pipeline.errors import ConfigError, Mistake
from pipeline.model.tasks import Similarity, Task

_WHERE = "class_names"
_FORMS = "give a list of names in the order of the model's outputs, {index: name} or {name: index}"
_SHOWN = 5


def names_of_classes(given: object) -> tuple[str, ...]:
    """Return names in the order of the classes: from a sequence, {index: name}, {name: index} or a pandas Series.

    A Series is read by its index, as the dict of the same content.

    Raises:
        ConfigError: they have no order, the indices do not run from 0 without gaps, or the keys and the values may both
            be the indices.
    """
    if given is None:
        return ()
    if isinstance(given, (set, frozenset)):
        raise ConfigError.one(_WHERE, "a set has no order, so that any name may come first", _FORMS)
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ConfigError.one(_WHERE, f"{type(given).__name__} is no list of names", _FORMS)
    pairs = _pairs(given)
    names = tuple(given) if pairs is None else _ordered(pairs)
    wrong = [(index, name) for index, name in enumerate(names) if not isinstance(name, str)]
    if wrong:
        index, name = wrong[0]
        raise ConfigError.one(_WHERE, f"the name of class {index} is {name!r}, which is no text", _FORMS)
    return tuple(map(str, names))


def _pairs(given: Iterable[Any]) -> list[tuple[Any, Any]] | None:
    """Return the keys and values of a dict, or of a Series, where a key may come twice; None for other sequences."""
    if isinstance(given, Mapping):
        return [*given.items()]
    if isinstance(given, (list, tuple)):
        return None
    import pandas as pd  # imported here, because it is slow

    if isinstance(given, pd.DataFrame):
        raise ConfigError.one(_WHERE, "a DataFrame is a table, and no list of names", "give the column of the names")
    return [*given.items()] if isinstance(given, pd.Series) else None


def _ordered(given: list[tuple[Any, Any]]) -> tuple[object, ...]:
    """Return the names of keys and values by their indices, which are the values or the keys."""
    _check_one_reading(given)
    if all(_is_index(value) for _, value in given):
        pairs = [(int(index), name) for name, index in given]
    elif all(_index(key) is not None for key, _ in given):
        pairs = [(int(key), name) for key, name in given]
    else:
        raise ConfigError.one(_WHERE, "neither the keys nor the values are all indices", _FORMS)
    indices = Counter(index for index, _ in pairs)
    expected = range(len(pairs))
    repeated = [index for index, count in indices.items() if count > 1]
    if repeated:
        both = " and ".join(repr(name) for index, name in pairs if index == repeated[0])
        raise ConfigError.one(_WHERE, f"class {repeated[0]} has several names: {both}", "give each class one name")
    if sorted(indices) != [*expected]:
        missing = next(index for index in expected if index not in indices)
        shown = ", ".join(map(str, sorted(indices)[:_SHOWN])) + (", ..." if len(indices) > _SHOWN else "")
        raise ConfigError.one(
            _WHERE,
            f"the indices must run from 0 without gaps, but {missing} is missing; they are {shown}",
            "name every output of the model",
        )
    by_index = dict(pairs)
    return tuple(by_index[index] for index in expected)


def _check_one_reading(given: list[tuple[Any, Any]]) -> None:
    """Raise ConfigError if keys and values may both be the indices, as in {'0': 1, '1': 0}, and the names would differ.

    Whole numbers for text are clear. So are folders named by numbers, {'1': 0, '10': 1}, whose names have gaps.
    """
    keys, values = [_index(key) for key, _ in given], [_index(value) for _, value in given]
    if None in keys or None in values or all(_is_index(key) and isinstance(value, str) for key, value in given):
        return
    read, other = (values, keys) if all(_is_index(value) for _, value in given) else (keys, values)
    if keys == values or (_runs(read) and not _runs(other)):
        return
    key, value = next((key, value) for key, value in given if _index(key) != _index(value))
    raise ConfigError.one(
        _WHERE,
        f"its keys and its values are all numbers, so that {{{key!r}: {value!r}}} may say that class {key} is called "
        f"'{value}', or that class {value} is called '{key}'",
        "give a list of names, as text, in the order of the model's outputs; for a class_to_idx of ImageFolder, "
        "its `classes`",
    )


def _runs(indices: Sequence[int | None]) -> bool:
    return set(indices) == {*range(len(indices))}


def _index(value: object) -> int | None:
    """Return a class index, which may be text, as the keys of JSON are; None if it is none."""
    if isinstance(value, Integral) and _is_index(value):
        return int(value)
    return int(value) if isinstance(value, str) and value.isdecimal() else None


def _is_index(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def name_notes(names: tuple[str, ...]) -> Iterable[str]:
    """Yield what the user should know of the names: that classes share one."""
    shared = shared_names(names)
    if shared:
        yield f"{_WHERE}: {shared}, so that pictures and tables do not tell them apart"


def class_indices(targets: object) -> Tensor:
    """Return targets as a tensor of integers.

    Raises:
        ValueError: they are no class indices, or an image has a class twice, as in labels that are one-hot.
    """
    try:
        indices = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"targets must be class indices, (B,) or (B, T), or None for the predicted classes: {error}"
        ) from None
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(f"targets must be class indices, not {indices.dtype}")
    if indices.ndim == 2:
        _check_repeats(indices)
    return indices


def names_of_task(task: Task | None) -> tuple[str, ...]:
    """Return the names that embeddings give to the outputs; empty for other models."""
    return task.names if isinstance(task, Similarity) else ()


def check_classes(names: tuple[str, ...], targets: Tensor | None, count: int, task: Task | None = None) -> None:
    """Check names and targets against the number of the model's classes, and names against those of embeddings.

    Raises:
        ConfigError: there are more or fewer names, or others, or the targets are one-hot labels of two classes; all at
            once.
    """
    found = []
    embedded = names_of_task(task)
    differing = [pair for pair in zip(names, embedded, strict=False) if pair[0] != pair[1]]
    if differing:
        what = f"it calls class {names.index(differing[0][0])} '{differing[0][0]}', the embeddings '{differing[0][1]}'"
        found.append(Mistake(_WHERE, what, "leave it out: the embeddings name the classes"))
    if names and len(names) != count:
        what = f"it names {len(names)} classes, but the model has {count}"
        found.append(Mistake(_WHERE, what, "give the names of the classes that the model was trained on, in its order"))
    both = [] if targets is None or targets.ndim != 2 or count != 2 else targets.tolist()
    if [1, 0] in both:
        what = "[1, 0] may be a one-hot label, or mean both classes of the model"
        hint = f"for one-hot labels give {_ARGMAX}; for both classes of every image give [0, 1] for each"
        found.append(Mistake("targets", what, hint))
    if found:
        raise ConfigError(found)


_ARGMAX = "targets.argmax(1)"


def _check_repeats(targets_BT: Tensor) -> None:
    """Raise ValueError if an image has a target twice."""
    sorted_BT = targets_BT.sort(1).values
    repeats_B = (sorted_BT.diff(dim=1) == 0).any(1)
    if not repeats_B.any():
        return
    image = int(repeats_B.nonzero()[0, 0])
    shown = targets_BT[image].tolist()
    what = f"targets must name a class once for each image, but those of image {image} are {_listed(shown)}"
    if not bool(((targets_BT == 0) | (targets_BT == 1)).all()):
        raise ValueError(what)
    if bool((targets_BT.sum(1) == 1).all()):
        raise ValueError(f"{what}; they look like one-hot labels: give {_ARGMAX}")
    raise ValueError(
        f"{what}; they look like labels of 0 and 1 for each class: give the indices of the classes of each image, "
        f"here {_listed([index for index, value in enumerate(shown) if value])}"
    )


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[: 2 * _SHOWN]))
    return f"[{shown}{', ...' if len(numbers) > 2 * _SHOWN else ''}]"
