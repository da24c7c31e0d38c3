"""What the stages of a run tell the driver while it goes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Beat:
    """From a worker: this many images of a chunk are explained, and their chunk is still going on."""

    images: int


@dataclass(frozen=True)
class Committed:
    """From a worker: a chunk is on disk.

    Attributes:
        shard, chunk: ordinals.
        images: images of the chunk, failed ones included.
        encoded_bytes: bytes of its images as they were read.
        failures: rows with an error, by code.
        ours: False when somebody else had published the chunk before.
    """

    shard: int
    chunk: int
    images: int
    encoded_bytes: int
    failures: dict[str, int]
    ours: bool
