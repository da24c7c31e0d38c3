"""A random sample of a dataset, which every reader knows by itself: the images whose keys have the smallest hashes."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Draw:
    """Which images are drawn: those of rank `last` and below.

    The rank of an image is a hash of the seed and its key, so it does not depend on the shards, their order or their
    chunks. Where two shards hold the same key, a hash with the shard's name decides between them.

    Attributes:
        n: how many images were asked for.
        seed: another seed draws others.
        of: how many images the dataset holds, failed ones included.
        last: the largest rank drawn; None where all images are.
    """

    n: int
    seed: int
    of: int = 0
    last: str | None = None

    def rank(self, shard: str, key: str) -> str:
        """Give the place of an image in the order of all images: 32 hex digits."""
        return _hash(f"{self.seed}\0{key}") + _hash(f"{self.seed}\0{key}\0{shard}")

    def holds(self, shard: str, key: str) -> bool:
        """Tell whether an image is drawn."""
        return self.last is None or self.rank(shard, key) <= self.last

    def __str__(self) -> str:
        """One line for people."""
        if self.last is None:
            return f"data.sample: all {self.of} images are taken, {self.n} were asked for"
        return f"data.sample: {self.n} of {self.of} images, seed {self.seed}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
