"""Stores what was measured block by block, so that an interrupted judging is continued.

A piece appears when it is complete. Pieces of other settings, weights or versions lie in other folders.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.judge.measuring import Measured
from schemas.manifest import canonical_json

_TEXTS = ("keys", "rules", "candidates", "metrics")


class Pieces:
    """The pieces of one judging.

    Args:
        folder: where `judge.json` will be written.
        identity: everything that determines the values.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
        self.folder = folder / f"pieces-{digest[:12]}"

    def path(self, network: str, block: int, scenes: int) -> Path:
        """Return the file of a block of scenes."""
        return self.folder / f"{network}-{block:04d}-{scenes}.npz"


def write_piece(path: Path, measured: Measured) -> None:
    """Write a piece; it replaces an equal one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    arrays: dict[str, Any] = {name: np.array(getattr(measured, name)) for name in (*_TEXTS, "own")}
    with partial.open("wb") as file:
        np.savez(file, values=measured.values_SKQ, **arrays)
    partial.replace(path)


def read_piece(path: Path) -> Measured | None:
    """Read a piece; None if it is not there, or damaged and so to be measured again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            texts = {name: tuple(str(text) for text in stored[name]) for name in _TEXTS}
            return Measured(own=tuple(stored["own"].tolist()), values_SKQ=stored["values"], **texts)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def joined(pieces: list[Measured]) -> Measured:
    """Join the pieces of one network."""
    first = pieces[0]
    return Measured(
        tuple(key for piece in pieces for key in piece.keys),
        tuple(rule for piece in pieces for rule in piece.rules),
        tuple(own for piece in pieces for own in piece.own),
        first.candidates,
        first.metrics,
        np.concatenate([piece.values_SKQ for piece in pieces]),
    )
