"""Class tables of datasets: names and WordNet ids by index, which labels may use."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from unicodedata import normalize

from pipeline.data.sources.imagenet import aliases, are_imagenet, plain, wnid_of
from pipeline.data.sources.objects import read_text
from pipeline.errors import ConfigError
from pipeline.settings.libraries import import_torchvision

OF_MODEL = "the model's class table"
"""What messages call the class table of a model, beside `data.classes`."""
_MAX_DIGITS = 9
"""Maximum length of a class index, which must fit the int32 column of labels."""
_SHOWN = 5
_WITH_POINT = re.compile(r"\d+\.\d*(?:[eE][+-]?\d{1,2})?", re.ASCII)
"""A number with a point: what pandas and NumPy write for an index in a column of floats."""


@dataclass(frozen=True)
class ClassTable:
    """Class names by index, and WordNet ids if known; empty if nothing is known."""

    names: tuple[str, ...] = ()
    wnids: tuple[str, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """Other names of the classes, as `plain` writes them; they apply where a label is none of the above."""
    source: str = field(default="data.classes", compare=False)
    """Where the names come from, for messages."""
    _index: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    _composed: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        # A name that several classes share is ambiguous, so it is left out. An id takes precedence over a name.
        ambiguous = {name for name, count in Counter(self.names).items() if count > 1}
        self._index.update({name: i for i, name in enumerate(self.names) if name not in ambiguous})
        self._index.update({wnid: i for i, wnid in enumerate(self.wnids)})
        self._composed.update({normalize("NFC", name): i for name, i in self._index.items() if not name.isascii()})

    def index(self, text: str) -> int | None:
        """Return the class index of a label: an index, a WordNet id or a name; None if it is none of these.

        A whole float such as `3.0` is an index, unless a class has that very name.
        """
        text = text.strip()
        if text.isascii() and text.isdigit():
            digits = text.lstrip("0") or "0"
            return int(digits) if len(digits) <= _MAX_DIGITS else None
        exact = self._exact(text)
        if exact is None and (whole := whole_float(text)) is not None and text not in self.names:
            return whole
        return self.aliases.get(plain(text)) if exact is None else exact

    def _exact(self, text: str) -> int | None:
        """Return the class of this name or id; letters may be composed or decomposed."""
        found = self._index.get(text)
        return self._composed.get(normalize("NFC", text)) if found is None and not text.isascii() else found

    def is_alias(self, text: str) -> bool:
        """Return whether a label is only known by another name of its class, or in other letters."""
        text = text.strip()
        is_index = text.isascii() and text.isdigit()
        return not is_index and text not in self._index and self.index(text) is not None

    def named(self, text: str) -> int | None:
        """Return the class that a name or a WordNet id certainly means; None for an index, and where tools differ.

        'crane' is 517 for torchvision and 134 for Keras.
        """
        text = text.strip()
        if text.isdigit():
            return None
        return self.aliases.get(plain(text)) if self.aliases else self._exact(text)

    def is_doubtful(self, text: str) -> bool:
        """Return whether a name is read as a class here, but as another one by other tools."""
        is_index = text.strip().isdigit() or whole_float(text) is not None
        return not is_index and self.index(text) is not None and self.named(text) is None

    def sharing(self, text: str) -> tuple[int, ...]:
        """Return the classes that share a name, which therefore names none of them; empty if the label has a class."""
        text = text.strip()
        if not text or self.index(text) is not None:
            return ()
        classes = tuple(i for i, name in enumerate(self.names) if name == text)
        return classes if len(classes) > 1 else ()

    def notes(self) -> Iterator[str]:
        """Yield what the user must know of the names: that classes share one."""
        shared = shared_names(self.names)
        if shared:
            lost = "a label of this name is no class, and tables and reports do not tell them apart"
            yield f"{self.source}: {shared}, so that {lost}"

    def name(self, index: int) -> str:
        """Return the name of a class; empty if it has none."""
        return self.names[index] if 0 <= index < len(self.names) else ""


def shared_names(names: Sequence[str]) -> str:
    """Say which classes have the same name; empty if none have, or if they are ImageNet's, where it is known."""
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count < 2 or are_imagenet(names):
        return ""
    shown = [str(index) for index, other in enumerate(names) if other == name]
    shown = shown if count <= _SHOWN else [*shown[:_SHOWN], f"{count - _SHOWN} more"]
    return f"classes {', '.join(shown[:-1])} and {shown[-1]} have the same name, {name!r}"


def whole_float(text: str) -> int | None:
    """Return the index that a whole float such as `3.0` means; None for any other text."""
    text = text.strip()
    value = float(text) if _WITH_POINT.fullmatch(text) else 0.5
    return int(value) if value.is_integer() and value < 10**_MAX_DIGITS else None


def named_by_model(names: Sequence[str]) -> ClassTable:
    """Return the table of the names that a model gives to its classes.

    Where these are the 1,000 classes of ImageNet in its order, WordNet ids and other names of them are known too.
    """
    others = aliases(names) if are_imagenet(names) else {}
    return ClassTable(tuple(names), aliases=others, source=OF_MODEL)


def load_classes(spec: str | None) -> ClassTable:
    """Load `data.classes`: 'imagenet-1k', or a CSV, a JSON or a text file at a path or a URL.

    A CSV has the columns class_index, class_name and, if known, wnid. A JSON file is the `config.json` of a model with
    `id2label`, an object of names by index, or a list of names. A text file has one name in each line, or a WordNet id
    and a name.

    Raises:
        ConfigError: the file is missing or is not such a table.
    """
    if spec is None:
        return ClassTable()
    if spec == "imagenet-1k":
        import_torchvision()
        from torchvision.models import ResNet50_Weights  # imported on demand, because it is slow

        names = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
        return ClassTable(names, aliases=aliases(names))
    text = read_text("data.classes", spec)
    if spec.lower().endswith(".csv"):
        return _from_csv(spec, text)
    return _from_json(spec, text) if spec.lower().endswith(".json") else _from_lines(text.splitlines())


def _from_lines(lines: list[str]) -> ClassTable:
    """Read names, or pairs of a WordNet id and a name, such as `n01440764 tench, Tinca tinca`."""
    ids = [wnid_of(line.replace("\t", " ")) for line in lines]
    if not lines or None in ids or len(set(ids)) < len(ids):
        return ClassTable(tuple(lines))
    wnids = tuple(one for one in ids if one)
    return ClassTable(tuple(line[len(one) :].strip() or one for line, one in zip(lines, wnids, strict=True)), wnids)


def _from_json(spec: str, text: str) -> ClassTable:
    try:
        found = json.loads(text)
        found = found.get("id2label", found) if isinstance(found, dict) else dict(enumerate(found))
        by_index = {int(index): name for index, name in found.items()}
        if sorted(by_index) != list(range(len(by_index))):
            raise ValueError("the indices must run from 0 without gaps")
        names = [by_index[index] for index in range(len(by_index))]
        if names and all(isinstance(name, list) and len(name) == 2 for name in names):  # as Keras: [WordNet id, name]
            return ClassTable(tuple(str(name) for _, name in names), tuple(str(wnid) for wnid, _ in names))
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError("the names are not text")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        what = f"'{spec}' is not a class table: {error}"
        raise ConfigError.one("data.classes", what, 'expected {"id2label": {"0": NAME, ...}} or a list') from None
    return ClassTable(tuple(names))


def _from_csv(spec: str, text: str) -> ClassTable:
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    try:
        rows.sort(key=lambda row: int(row["class_index"]))
        if [int(row["class_index"]) for row in rows] != list(range(len(rows))):
            raise ValueError("class_index must run from 0 without gaps or repeats")
        names = tuple(row["class_name"] for row in rows)
        if None in names:
            raise ValueError(f"class {names.index(None)} has no name")
        shared = [wnid for wnid, count in Counter(row.get("wnid") for row in rows).items() if wnid and count > 1]
        if shared:
            raise ValueError(f"{shared[0]} belongs to several classes")
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ConfigError.one(
            "data.classes",
            f"'{spec}' is not a class table: {error}",
            "columns class_index, class_name, wnid (optional)",
        ) from None
    wnids = tuple(row["wnid"] for row in rows) if rows and rows[0].get("wnid") else ()
    return ClassTable(names, wnids)
