"""Draws random numbers that depend only on the run seed, the image key and the purpose, not on batches or devices."""

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def generator(seed: int, key: str, purpose: str) -> torch.Generator:
    """Return the generator of one image and purpose; it is on the CPU, so that all devices get the same numbers."""
    words = f"{seed}\0{key}\0{purpose}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.sha256(words).digest()[:8], "big", signed=True)
    return torch.Generator().manual_seed(number)


def normal(seed: int, keys: Sequence[str], purpose: str, shape: tuple[int, ...], samples: int) -> Iterator[Tensor]:
    """Yield `samples` tensors of standard normal numbers, (B, *shape), each row drawn from its image's generator."""
    generators = [generator(seed, key, purpose) for key in keys]
    for _ in range(samples):
        yield torch.stack([torch.randn(shape, generator=source) for source in generators])
