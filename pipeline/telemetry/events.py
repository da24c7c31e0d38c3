"""What the stages of a run tell the driver while it goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Usage:
    """What something took.

    Attributes:
        seconds: by stage, see `pipeline.telemetry.timers`.
        passes: of the model, in images, by kind: forward, head, backward.
        batch: most images in one pass from now on, where memory ran out and made it smaller; else None.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    passes: Mapping[str, int] = field(default_factory=dict)
    batch: int | None = None


@dataclass(frozen=True)
class Heartbeat:
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
        worker: who says so; another name is another process.
        careful: an earlier attempt ended early, so that it was explained image by image.
        waiting: loads that the worker holds ready beside this one.
        spent: what the worker spent since it last said so, beside reading this chunk.
    """

    shard: int
    chunk: int
    images: int
    encoded_bytes: int
    failures: dict[str, int]
    ours: bool
    worker: str = ""
    isolated: bool = False
    waiting: int = 0
    usage: Usage = field(default_factory=Usage)
