"""The exceptions of camatlas: problems that the operator must solve; problems in the data are failure rows.

::

    CamatlasError             exit code 1
    ├── ConfigError           2    mistakes in the run file, options, model, data or output, all at once
    │   └── PluginError       2    a method or metric of the user's raises, or does what it must not
    ├── LayerError            2    the target layer cannot serve as one (also a ValueError)
    │   └── UnknownLayerError 2    the model has no layer of that name
    ├── DamagedRunError       4    a run folder does not match its manifest
    ├── StoreError            5    a store cannot be reached or publish safely, or a shard is gone or replaced
    ├── StalledError          1    the engine stopped: a worker kept dying, or there was no progress
    └── DeviceFailedError     1    the GPU failed; in a run, another worker takes over
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_USER = re.compile(r"([a-z][a-z0-9+.-]{0,30}://)[^/@\s]+@", re.IGNORECASE)
_SECRET = re.compile(
    r"""((?:(?:secret|token|password|passwd|signature|credential|access_?key|api_?key)[\w-]{0,200}|[?&]sig)"""
    r"""["']?\s*(?:[=:]|%3[AD])\s*["']?)[^\s"'&,;})]+""",
    re.IGNORECASE,
)


class CamatlasError(Exception):
    """A problem for the operator; its message says what happened, where, what it means and what to do."""

    exit_code = 1

    def __str__(self) -> str:
        return masked(super().__str__())


@dataclass(frozen=True)
class Mistake:
    """One thing to correct before a run can start."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        before_hint = "\n" if "\n" in self.what else " "  # what ends with a line of carets stays aligned
        return masked(f"{self.where}: {self.what}" + (f"{before_hint}({self.hint})" if self.hint else ""))


class ConfigError(CamatlasError, ValueError):
    """All mistakes in what the user requested, found before any work starts."""

    exit_code = 2

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[Mistake, ...]]]:
        return type(self), (self.mistakes,)

    @classmethod
    def one(cls, where: str, what: str, hint: str = "") -> "ConfigError":
        """Build the error of a single mistake."""
        return cls([Mistake(where, what, hint)])


class PluginError(ConfigError):
    """A plug-in raised an exception, gave something that is no map or value, or changed what is not its own.

    In a run, this is a failure row of the plug-in; other methods and metrics go on.
    """


class LayerError(CamatlasError, ValueError):
    """The chosen target layer does not give one spatial activation map per forward pass."""

    exit_code = 2


class UnknownLayerError(LayerError):
    """The model has no layer of that name."""


class DamagedRunError(CamatlasError):
    """A run folder does not match its manifest and receipts."""

    exit_code = 4


class StoreError(CamatlasError):
    """A store cannot be reached or written to, cannot publish only-if-absent, or a shard in it was replaced."""

    exit_code = 5


class StalledError(CamatlasError):
    """The engine ended the run: a worker kept failing, or there was no progress for too long."""


class DeviceFailedError(CamatlasError):
    """The GPU failed, by a device-side assert for example: this process cannot use it any more."""


class Mistakes:
    """Collects the mistakes of several checks, so that the user sees all of them at once."""

    def __init__(self) -> None:
        self.found: list[Mistake] = []

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Run one check, and collect its mistakes instead of raising them."""
        try:
            yield
        except ConfigError as error:
            self.found.extend(error.mistakes)

    def raise_if_any(self) -> None:
        """Raise one `ConfigError` with all mistakes found so far, if there are any."""
        if self.found:
            raise ConfigError(dict.fromkeys(self.found))


def reason(error: Exception) -> str:
    """Return why a file cannot be used, without the number and the path that an OSError repeats."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def masked(text: str) -> str:
    """Mask what may be a secret in a text: the user part of a URL, and the values of words that name secrets."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", text))


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known name that the user may have meant, or list the known names when there are few."""
    names = sorted(known)
    if not names:
        return "there are none"
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if len(names) <= 40 else ""


def first_line(error: BaseException) -> str:
    """Format an exception as one short line for a failure row."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return masked(text)[:300]
