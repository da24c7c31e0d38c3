"""Philox4x64-10 in integer operations of PyTorch: the words that NumPy's Philox gives, made on a device.

Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011). PyTorch has no unsigned product of
128 bits. Products of halves of 32 bits modulo 2^64 have the same bits whether they are signed or not, so int64
suffices, with shifts to the right masked.

Legend: B keys, N counters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.model.transfers import sent

WORDS = 4
"""Words of 64 bits that one counter gives."""
_ROUNDS = 10
_FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Key:
    """A key of 128 bits."""

    number: int

    def rounds(self) -> list[list[int]]:
        """Return the two words of the key in each round, (10, 2), as signed integers."""
        words = (self.number, self.number >> 64)
        return [[_signed(word + r * step) for word, step in zip(words, _STEPS, strict=True)] for r in range(_ROUNDS)]


def words_on(keys: Sequence[Key], first: int, counters: int, device: torch.device) -> Tensor:
    """Return the words of counters first, first + 1, ... for each key, (B, 4 N) int64, without waiting for the device.

    NumPy's generator begins with counter 1.
    """
    rounds_R2B1 = sent(torch.tensor([key.rounds() for key in keys]).permute(1, 2, 0)[..., None], device)
    low_2BN = torch.zeros(2, len(keys), counters, dtype=torch.int64, device=device)  # words 0 and 2 of the counters
    low_2BN[0] = torch.arange(first, first + counters, device=device)
    high_2BN = torch.zeros_like(low_2BN)  # words 1 and 3
    for keys_2B1 in rounds_R2B1:
        upper, lower = zip(*(_product(low_2BN[i], factor) for i, factor in enumerate(_FACTORS)), strict=True)
        low_2BN = torch.stack(upper[::-1]) ^ high_2BN ^ keys_2B1
        high_2BN = torch.stack(lower[::-1])
    return torch.stack((low_2BN[0], high_2BN[0], low_2BN[1], high_2BN[1]), 2).flatten(1)


def _product(number: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the upper and the lower 64 bits of an unsigned product, from four products of halves."""
    low, high = number & _LOW, _upper(number)
    factor_low, factor_high = factor & _LOW, factor >> 32
    middle = high * factor_low + _upper(low * factor_low)
    other = low * factor_high + (middle & _LOW)
    return high * factor_high + _upper(middle) + _upper(other), number * _signed(factor)


def _upper(number: Tensor) -> Tensor:
    """Return the upper 32 bits of each number."""
    return (number >> 32) & _LOW


def _signed(word: int) -> int:
    """Return the signed integer with the lowest 64 bits of a number."""
    word %= 1 << 64
    return word - (1 << 64) if word >> 63 else word
