"""Imports a user's decoder, in the subprocess that will call it."""

import contextlib
import hashlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.arrays import Decoder
from pipeline.data.limits import DecoderSource
from pipeline.errors import ConfigError
from pipeline.settings.functions import imported

WHERE = "data.decoder"
_DIGEST_DIGITS = 16


@dataclass(frozen=True)
class LoadedDecoder:
    """A user's decoder and the digest of its source."""

    decoder: Decoder
    digest: str


def here(name: str) -> DecoderSource:
    """Return a decoder that is imported as in this process: from the working folder and the folders of `sys.path`."""
    folders = (os.getcwd(), *sys.path)  # noqa: PTH109 - pathlib would resolve links
    return DecoderSource(name, tuple(os.path.abspath(folder) for folder in folders if folder))  # noqa: PTH100


def load_decoder(source: DecoderSource) -> LoadedDecoder:
    """Import a decoder, which runs code of the user's; the process then works in the working folder of the run.

    Raises:
        ConfigError: it cannot be imported or called, or its source cannot be read.
    """
    working, *others = source.folders
    with contextlib.suppress(OSError):  # another machine may not have the folder; the module is installed there
        os.chdir(working)
    sys.path.extend(folder for folder in others if folder not in sys.path)
    function = imported(WHERE, source.name)
    if not _takes_bytes(function):
        raise ConfigError.one(
            WHERE, f"'{source.name}' cannot be called with the bytes of an image alone",
            f"its signature is {inspect.signature(function)}",
        )  # fmt: skip
    return LoadedDecoder(function, _source_digest(source.name, function))


def _source_digest(name: str, function: Decoder) -> str:
    """Hash the file that defines a function; an object that is called belongs to the module that is named."""
    module = sys.modules[name.partition(":")[0]]
    defined_in = inspect.getmodule(inspect.unwrap(function)) if inspect.isroutine(function) else module
    try:
        text = Path(getattr(defined_in, "__file__", None) or "").read_bytes()
    except OSError:
        raise ConfigError.one(
            WHERE, f"the source of '{name}' cannot be read, so a change of it would go unnoticed",
            "call it from a function in a file of your own",
        ) from None  # fmt: skip
    return hashlib.sha256(text).hexdigest()[:_DIGEST_DIGITS]


def _takes_bytes(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(b"")
    except TypeError:
        return False
    except ValueError:  # a function written in C may have no signature
        return True
    return True
