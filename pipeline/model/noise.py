"""Random numbers that depend on what is explained and on nothing else: (run seed, image key, purpose)."""

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def generator(seed: int, key: str, purpose: str) -> torch.Generator:
    """Make the generator of one image and purpose, on the CPU, so that every device sees the same numbers."""
    words = f"{seed}\0{key}\0{purpose}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.sha256(words).digest()[:8], "big", signed=True)
    return torch.Generator().manual_seed(number)


def normal(seed: int, keys: Sequence[str], purpose: str, shape: tuple[int, ...], samples: int) -> Iterator[Tensor]:
    """Draw standard normal numbers (B, *shape), `samples` times; each row from its own generator."""
    generators = [generator(seed, key, purpose) for key in keys]
    for _ in range(samples):
        yield torch.stack([torch.randn(shape, generator=own) for own in generators])
