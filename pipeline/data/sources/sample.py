"""A random sample that each reader can compute independently: the images whose keys have the smallest hashes."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Draw:
    """The drawn images: those with a rank up to `last`.

    The rank of an image is a hash of the seed and its key, so it does not depend on the shards, their order or their
    chunks. If two shards contain the same key, a hash that includes the shard's name orders them.

    Attributes:
        n: number of images requested.
        seed: another seed draws other images.
        of: number of images in the dataset, including failed ones.
        last: the largest rank drawn; None if all images are drawn.
    """

    n: int
    seed: int
    of: int = 0
    last: str | None = None

    def rank(self, shard: str, key: str) -> str:
        """Return the rank of an image, 32 hex digits that order all images."""
        return _hash(f"{self.seed}\0{key}") + _hash(f"{self.seed}\0{key}\0{shard}")

    def holds(self, shard: str, key: str) -> bool:
        """Return whether an image is drawn."""
        return self.last is None or self.rank(shard, key) <= self.last

    def __str__(self) -> str:
        """Describe the sample in one line."""
        if self.last is None:
            return f"data.sample: all {self.of} images are used, {self.n} were requested"
        return f"data.sample: {self.n} of {self.of} images, seed {self.seed}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
