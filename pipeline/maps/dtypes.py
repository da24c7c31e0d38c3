"""The types in which maps are stored; a file of its own, so that a run file is read without numpy."""

from typing import Literal

MapDtype = Literal["u8", "f16", "f32"]
