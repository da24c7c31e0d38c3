"""Looks at a few images before a run: their boxes must fit the pictures in the format that the run file states."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from pipeline.data.decode import limits_for
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, images_of, read_shard
from pipeline.data.sources.box_formats import ORDERS, in_pixels
from pipeline.data.sources.objects import is_url
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.data.sources.shards import TABLE_KINDS, Box
from pipeline.errors import ConfigError
from pipeline.settings.data import BoxOrder
from pipeline.settings.preprocess import Preprocess

_SHARDS, _IMAGES_OF_A_SHARD = 4, 8
_FEWEST_BOXES = 4
"""With fewer boxes, "most" says nothing."""
_SLACK = 0.02
"""Boxes drawn by hand reach beyond their picture by this share of its side."""
_FEW = 0.2
"""Images with swapped corners among the members of a tar; with fewer of them, each is a failure row."""
_NUMBERS = re.compile(r"^\(([^()]*)\) is not four finite numbers")


@dataclass
class _Seen:
    """What was seen of a few images: boxes, those beyond their picture, and images with swapped corners.

    `columns` counts those whose boxes are in a column, in which not one box may be swapped.
    """

    images: int = 0
    boxes: int = 0
    beyond: int = 0
    swapped: int = 0
    columns: int = 0
    example: str = ""


def check_boxes(
    shards: Sequence[Shard], reading: Reading, limits: DecodeLimits, preprocess: Preprocess, order: BoxOrder
) -> None:
    """Raise ConfigError if boxes of the first images contradict their format.

    Shards in object stores are not read, because that would cost requests; neither are images without boxes decoded.

    Args:
        shards: those of the run.
        reading, limits, preprocess: how its images are read and decoded.
        order: the stated format.
    """
    seen = _Seen()
    with closing(DecodeSandbox(decoder=limits.decoder)) as sandbox:
        for shard, item in _first_items(shards, reading):
            seen.images += 1
            if isinstance(item, Failure):
                _count_swapped(item, shard, seen)
            elif item.boxes_xyxy:
                _look(item, seen, sandbox, limits, preprocess)
    others = " or ".join(other for other in ORDERS if other != order)
    hint = f"they were read as data.boxes_format: {order}; state what they are, such as {others}"
    if seen.columns or (seen.swapped > 1 and seen.swapped > _FEW * seen.images):
        raise ConfigError.one(
            "data.boxes_format", f"the boxes are not in this format, for example {seen.example}", hint
        )
    if seen.boxes >= _FEWEST_BOXES and seen.beyond > seen.boxes / 2:
        what = f"{seen.beyond} of the first {seen.boxes} boxes reach beyond their picture, for example {seen.example}"
        raise ConfigError.one("data.boxes_format", what, hint)


def _first_items(shards: Sequence[Shard], reading: Reading) -> Iterator[tuple[Shard, Item]]:
    """Yield the first images of a few local shards."""
    local = [shard for shard in shards if not is_url(shard.location)]
    count = min(_SHARDS, len(local))
    chosen = [local[len(local) * i // count] for i in range(count)]
    with parquet_sandbox() as sandbox:
        for shard in chosen:
            items = images_of(read_shard(_first_files(shard), reading, sandbox.rows))
            yield from ((shard, item) for item in itertools.islice(items, _IMAGES_OF_A_SHARD))


def _first_files(shard: Shard) -> Shard:
    """Keep the first local files of a folder or of a manifest."""
    entries = [entry for entry in shard.entries if not is_url(entry.location)]
    return replace(
        shard, members=shard.members[:_IMAGES_OF_A_SHARD], entries=tuple(entries[:_IMAGES_OF_A_SHARD]), take=None
    )


def _count_swapped(failure: Failure, shard: Shard, seen: _Seen) -> None:
    found = _NUMBERS.match(failure.detail)
    if found is not None and all(math.isfinite(float(number)) for number in found[1].split(",")):
        seen.swapped += 1
        seen.columns += shard.kind in TABLE_KINDS
        seen.example = seen.example or f"{failure.key}: {failure.detail}"


def _look(sample: Sample, seen: _Seen, sandbox: DecodeSandbox, limits: DecodeLimits, preprocess: Preprocess) -> None:
    """Decode an image, and compare its boxes with the size of its picture."""
    try:
        framed = sandbox.frame(sample.image, sample.boxes_xyxy, preprocess, limits_for(sample, limits))
    except UnreadableImageError:
        return
    height, width = framed.size
    boxes = in_pixels(sample.boxes_xyxy, width, height) if sample.boxes_relative else sample.boxes_xyxy
    for box in boxes or ():
        seen.boxes += 1
        if not _fits(box, width, height) and not _fits(box, height, width):  # boxes are as stored, before EXIF
            seen.beyond += 1
            numbers = ", ".join(f"{number:g}" for number in box)
            seen.example = seen.example or f"{sample.key}: corners ({numbers}) in {width} x {height} pixels"


def _fits(box: Box, width: int, height: int) -> bool:
    x0, y0, x1, y1 = box
    slack_x, slack_y = 1 + _SLACK * width, 1 + _SLACK * height
    return x0 >= -slack_x and y0 >= -slack_y and x1 <= width + slack_x and y1 <= height + slack_y
