"""Random numbers of methods and metrics: they depend on the run seed, the image key and the purpose alone.

The generator is Philox4x64-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011), which
turns a key and a counter into four words of 64 bits; the key is a hash of (seed, image key, purpose). The words are
integers, NumPy's on a CPU and those of integer operations on a device, so they are equal everywhere. So are the numbers
made of them:

uniform  the first 24 bits of a word of 32 bits, times 2^-24: exact in float32.
normal   the sum of two numbers of a table, which 16 bits each select: quantiles of the normal distribution in the
         middles of 65,536 equal shares, scaled so that the sum has variance 1. One addition in float32 rounds alike
         everywhere, as logarithms and cosines do not. The sums reach to 6.1; their kurtosis is 3 - 4e-4. The table is
         made by Python on the host; a test holds its digest.

Numbers for a CPU come from NumPy, at 4 ns each (`torch.randn`: 3 ns); Philox in operations of PyTorch takes ten times
as long there. On a device, few numbers are copied from pinned memory, and many are made in place, by some 250 launches
for all images of a batch. So the host does not wait, and does not draw either: the noise of 25 copies of an image would
take it 15 ms.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from math import prod
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.model.philox import WORDS, Key, words_on
from pipeline.model.transfers import sent

VERSION = "philox4x64"
"""What the identity of a run records of the numbers that its methods and metrics draw."""

_HALVES = 2 * 2 * WORDS
"""Numbers of 16 bits in the words of one counter."""
_FEW = 1 << 14
"""Up to this many numbers for an image, a copy is quicker than the operations that make them on a device."""
_CPU = torch.device("cpu")


def seed_of(seed: int, key: str, purpose: str) -> int:
    """Return the seed for generators of libraries, for one image and purpose."""
    return int.from_bytes(_digest(seed, key, purpose)[:8], "big", signed=True)


class Stream:
    """The random numbers of one image and purpose, on the host; every call begins with a new counter."""

    def __init__(self, seed: int, key: str, purpose: str) -> None:
        self.key = _key(seed, key, purpose)
        self._words = np.random.Philox(key=self.key.number)

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers in [0, 1)."""
        bits = self._halves(2 * prod(shape)).view("<u4")[: prod(shape)]
        return torch.from_numpy((bits >> 8).astype(np.float32) * np.float32(2**-24)).view(shape)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        count = prod(shape)
        parts = _table().take(self._halves(2 * count))
        return torch.from_numpy(parts[:count] + parts[count : 2 * count]).view(shape)

    def below(self, limit: int) -> int:
        """Draw an integer in [0, limit), with a bias below limit / 2^64."""
        return int(self._halves(4).view("<u8")[0]) * limit >> 64

    def permutation(self, count: int) -> Tensor:
        """Draw a random order of `count` things, as the order of as many words of 64 bits."""
        return torch.from_numpy(self._halves(4 * count).view("<u8")[:count].argsort(kind="stable"))

    def _halves(self, count: int) -> npt.NDArray[np.uint16]:
        """Return at least `count` numbers of 16 bits: those of whole counters."""
        return self._words.random_raw(-(-count // _HALVES) * WORDS).astype("<u8", copy=False).view("<u2")


def normal(
    seed: int, keys: Sequence[str], purpose: str, shape: tuple[int, ...], samples: int, device: torch.device = _CPU
) -> Iterator[Tensor]:
    """Yield `samples` tensors of standard normal numbers, (B, *shape) float32; rows of one image have the same ones."""
    distinct = list(dict.fromkeys(keys))
    rows_B = torch.tensor([distinct.index(key) for key in keys])
    for drawn in _normal_of(seed, distinct, purpose, shape, samples, device):
        yield drawn if len(distinct) == len(keys) else drawn[sent(rows_B, device)]


def uniform(seed: int, keys: Sequence[str], purpose: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw numbers in [0, 1), (B, *shape) float32; rows of one image have the same ones."""
    drawn = {key: Stream(seed, key, purpose).uniform(*shape) for key in dict.fromkeys(keys)}
    return sent(torch.stack([drawn[key] for key in keys]), device)


def _normal_of(
    seed: int, keys: Sequence[str], purpose: str, shape: tuple[int, ...], samples: int, device: torch.device
) -> Iterator[Tensor]:
    count = prod(shape)
    if device.type != "cuda" or count <= _FEW:
        streams = [Stream(seed, key, purpose) for key in keys]
        for _ in range(samples):
            yield sent(torch.stack([stream.normal(*shape) for stream in streams]), device)
        return
    counters, table = -(-2 * count // _HALVES), _table_on(device)
    philox_keys = [_key(seed, key, purpose) for key in keys]
    for sample in range(samples):
        yield normal_of(words_on(philox_keys, 1 + sample * counters, counters, device), table, count).view(-1, *shape)


def normal_of(words_BW: Tensor, table: Tensor, count: int) -> Tensor:
    """Turn words of 64 bits into standard normal numbers, (B, count), as `Stream.normal` does."""
    parts_BH = table[words_BW.view(torch.int16)[:, : 2 * count].long() & 0xFFFF]
    return parts_BH[:, :count] + parts_BH[:, count:]


@cache
def _table() -> npt.NDArray[np.float32]:
    """Return the numbers whose sums of two are normal, with variance 1/2 each, by 16 bits."""
    shares = 1 << 16
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / shares) for i in range(shares)])
    table: npt.NDArray[np.float32] = (quantiles / np.sqrt(2 * np.mean(quantiles**2))).astype(np.float32)
    return table


@cache
def _table_on(device: torch.device) -> Tensor:
    return sent(torch.from_numpy(_table()), device)


def _key(seed: int, key: str, purpose: str) -> Key:
    return Key(int.from_bytes(_digest(seed, key, purpose)[:16], "big"))


def _digest(seed: int, key: str, purpose: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}\0{purpose}".encode("utf-8", "surrogatepass")).digest()
