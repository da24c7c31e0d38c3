"""Imports a user's decoder, in the subprocess that will call it."""

import contextlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.data.arrays import Decoder
from pipeline.data.limits import DecoderSource
from pipeline.errors import ConfigError
from pipeline.settings.functions import imported, source_digest

WHERE = "data.decoder"


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
    return LoadedDecoder(function, source_digest(WHERE, source.name, function))


def _takes_bytes(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(b"")
    except TypeError:
        return False
    except ValueError:  # a function written in C may have no signature
        return True
    return True
