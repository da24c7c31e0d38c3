"""Decoders as users write them, in a module of a temporary folder that becomes the working folder."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SOURCE = """
import io, os, sys, time
import numpy as np

def npy(data):
    return np.load(io.BytesIO(data))

def as_uint16(data):
    return npy(data).astype(np.uint16)

def big_endian(data):
    return npy(data).astype(">u2")

def unit(data):
    return npy(data) / 255.0, (0.0, 1.0)

def signed(data):
    return npy(data).astype(np.int16) - 1000, (-1000, 1000)

def upside_down(data):
    return npy(data)[::-1]

def channels_first(data):
    return np.moveaxis(npy(data), 2, 0)

def flat(data):
    return npy(data).ravel()

def empty(data):
    return npy(data)[:0]

def grey(data):
    return npy(data)[:, :, 0]

def text(data):
    return npy(data).astype(str)

def a_list(data):
    return npy(data).tolist()

def nothing(data):
    pass

def masked(data):
    return np.ma.masked_less(npy(data), 9)

def without_range(data):
    return npy(data) / 255.0

def not_finite(data):
    return npy(data) * np.float32("nan"), (0, 1)

def beyond(data):
    return npy(data).astype(float), (0, 1)

def bad_range(data):
    return npy(data), (9, 3)

def odd_range(data):
    return npy(data), "0 to 1"

def raising(data):
    raise KeyError("PixelData")

def leaving(data):
    sys.exit("bye")

def greedy(data):
    return np.ones(1 << 40)

def talking(data):
    print("hello"); os.write(1, b"hello"); sys.stdin.read()
    return npy(data)

def dying(data):
    os._exit(3)

def slow(data):
    time.sleep(600)

def two(data, other):
    return npy(data)

here = os.getcwd()
constant = 5
"""


def write_module(folder: Path, name: str = "my_formats", source: str = SOURCE) -> Path:
    """Write the module."""
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


def npy(array: npt.NDArray[Any]) -> bytes:
    """Return the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def spectral(channels: int = 6, height: int = 30, width: int = 40, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return a random image of any number of channels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
