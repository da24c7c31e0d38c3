"""Events that workers send to the driver during a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Usage:
    """Time and model passes used by a piece of work.

    Attributes:
        seconds: by stage, see `pipeline.telemetry.timers`.
        passes: images passed through the model, by kind: forward, head, backward.
        batch: new maximum of images per pass, if it was lowered because memory ran out; else None.
        notes: sentences for the user.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    passes: Mapping[str, int] = field(default_factory=dict)
    batch: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Heartbeat:
    """A worker's report that it explained this many more images of an unfinished chunk."""

    images: int


@dataclass(frozen=True)
class Committed:
    """A worker's report that a chunk is published.

    Attributes:
        shard, chunk: ordinals.
        images: images of the chunk, including failed ones.
        encoded_bytes: bytes of its encoded images.
        failures: number of rows with an error, by code.
        ours: False when another process had already published the chunk.
        worker: name of the worker process.
        isolated: an earlier attempt ended early, so the chunk was explained image by image.
        reasons: why the earlier attempts ended, as far as the workers could tell.
        waiting: further work units that wait in the worker.
        usage: the worker's usage since its last report, and the time to read this chunk.
        deep_images, deep_peak: number of images of more than 8 bits whose range is that of their type, and their
            largest value.
        labelled: number of images by label and predicted class, of images that have both.
        confidence: sum of the confidences of these predictions.
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
    deep_images: int = 0
    deep_peak: int = 0
    reasons: tuple[str, ...] = ()
    labelled: Mapping[tuple[int, int], int] = field(default_factory=dict)
    confidence: float = 0.0
