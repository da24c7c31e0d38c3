"""Collects the rows of a manifest: repeated rows, several boxes of one image, and the rows that are wrong."""

from contextlib import AbstractContextManager
from dataclasses import replace

from pipeline.data.sources.shards import Described, Entry
from pipeline.data.sources.wrong_rows import WrongRowError, WrongRows
from pipeline.errors import ConfigError


class Rows:
    """The images of a manifest, each once, in the order of their first rows.

    Args:
        location: the manifest, for messages.
        where: the setting that names it.
    """

    def __init__(self, location: str, where: str) -> None:
        self._location, self._where = location, where
        self._wrong = WrongRows(where, location)
        self.entries: dict[str, Entry] = {}
        self.repeated = 0

    def collecting(self, number: int) -> AbstractContextManager[None]:
        """Take one row; if it is wrong, count it, and keep it as an example."""
        return self._wrong.collecting(f"row {number}")

    def add(self, entry: Entry) -> None:
        """Take what a row says of an image; equal rows count once, and further boxes join those of the image.

        Raises:
            WrongRowError: it contradicts an earlier row of the image.
        """
        name = entry.key or entry.location
        known = self.entries.get(name)
        if known is None:
            self.entries[name] = entry
        elif known.location != entry.location:
            raise WrongRowError(f"the key '{name}' also belongs to '{known.location}'")
        elif known.said == entry.said:
            self.repeated += 1
        else:
            self.entries[name] = replace(known, said=_together(known.said, entry.said, name))

    def raise_if_wrong(self) -> None:
        """Raise ConfigError with a few of the wrong rows and their number, or if there is no row."""
        if not self._wrong.count:
            raise ConfigError.one(self._where, f"'{self._location}' lists no image")
        self._wrong.raise_if_any()


def _together(one: Described, other: Described, name: str) -> Described:
    """Join the boxes of two rows of an image, with the classes of both."""
    if one.boxes_xyxy is None or other.boxes_xyxy is None:
        raise WrongRowError(f"'{name}' has {_labels(other)} here, and {_labels(one)} in an earlier row")
    pairs = [
        *zip(_box_labels(one), one.boxes_xyxy, strict=True),
        *zip(_box_labels(other), other.boxes_xyxy, strict=True),
    ]
    pairs = list(dict.fromkeys(pairs))
    labels, boxes = tuple(label for label, _ in pairs), tuple(box for _, box in pairs)
    distinct = tuple(dict.fromkeys(label for label in labels if label))
    if len(set(labels)) == 1:
        return replace(one, label=labels[0] or None, boxes_xyxy=boxes)
    return replace(one, label=None, labels=distinct, boxes_xyxy=boxes, box_labels=labels)


def _box_labels(said: Described) -> tuple[str, ...]:
    return said.box_labels or (said.label or "",) * len(said.boxes_xyxy or ())


def _labels(said: Described) -> str:
    if said.labels is not None:
        return f"the labels {', '.join(said.labels) or 'none'}"
    return "no label" if said.label is None else f"the label {said.label}"
