"""Rows, lines and files that are wrong: a few of them are named, all are counted."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.data.sources.box_formats import BadAnnotationError
from pipeline.errors import ConfigError

_NAMED = 5


class WrongRowError(ValueError):
    """A row that names no image, says something that cannot be read, or contradicts another row."""


class WrongRows:
    """Counts the rows of a file, and keeps a few of the wrong ones as examples.

    Args:
        where: the setting that names the file.
        location: the file or folder.
        what: what its rows are called, such as "rows".
    """

    def __init__(self, where: str, location: str, what: str = "rows") -> None:
        self._where, self._location, self._what = where, location, what
        self.count = self.wrong = 0
        self._examples: list[str] = []

    @contextmanager
    def collecting(self, name: str) -> Iterator[None]:
        """Take one row; if it is wrong, count it and go on."""
        self.count += 1
        try:
            yield
        except (WrongRowError, BadAnnotationError) as error:
            self.wrong += 1
            if len(self._examples) < _NAMED:
                self._examples.append(f"{name}: {error}")

    def raise_if_any(self) -> None:
        """Raise ConfigError with the number of wrong rows and a few of them."""
        if not self.wrong:
            return
        counts = f"{self.wrong:,} of {self.count:,} {self._what} of '{self._location}' are wrong"
        more = self.wrong - len(self._examples)
        rest = f"; and {more:,} more" if more else ""
        raise ConfigError.one(self._where, f"{counts}: {'; '.join(self._examples)}{rest}")
