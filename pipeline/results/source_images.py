"""Reads the original images of a run again, from the shards that its manifest names."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

from PIL import Image

from pipeline.data.annotations import read_annotations
from pipeline.data.decode import limits_for
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.framing import PixelArray
from pipeline.data.inputs import limits_of, reading_of, shards_of
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.data.sources import Sample, read_shard
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.data.sources.shards import Boxes
from pipeline.errors import CamatlasError
from pipeline.maps.pictures import as_picture, picture_note
from pipeline.results.places import Place
from pipeline.results.run_images import run_config
from pipeline.settings.preprocess import Preprocess
from schemas.manifest import RunManifest


@dataclass(frozen=True)
class Original:
    """An image as the model sees it, resized and cropped, with its boxes transformed accordingly.

    Attributes:
        pixels_HWC: uint8 or float32 in [0, 1], with all channels of the model's input.
        boxes_xyxy: boxes in pixels of the crop.
    """

    pixels_HWC: PixelArray
    boxes_xyxy: Boxes | None

    @cached_property
    def image(self) -> Image.Image:
        """Draw the image as an RGB picture; for other than 1 or 3 channels, it shows some of them."""
        return as_picture(self.pixels_HWC)

    @property
    def note(self) -> str:
        """Say what the picture shows; empty for grey and RGB images."""
        return picture_note(self.pixels_HWC.shape[2])


def originals(manifest: RunManifest, wanted: Iterable[Place]) -> Iterator[tuple[Place, Original]]:
    """Yield images by (shard, image key); images of missing or changed shards are left out.

    So are all images if the run has a decoder that cannot be imported here, or was changed since. Reads each shard
    until all requested images of it are found.
    """
    by_shard: dict[str, set[str]] = defaultdict(set)
    for shard_name, key in wanted:
        by_shard[shard_name].add(key)
    try:
        config = run_config(manifest)
        shards = shards_of(config.data, by_shard)
        names = manifest.classes if manifest.identity.data.get("classes") == "model" else ()
        annotations = read_annotations(config, shards, names)
        limits = limits_of(manifest.identity.data)
        with closing(DecodeSandbox(decoder=limits.decoder)) as sandbox:
            if limits.decoder is not None:
                sandbox.digest()
    except CamatlasError:
        return
    reading = reading_of(config.data, annotations)
    preprocess = Preprocess.of(manifest.identity.data["preprocess"])
    known = {(entry.name, entry.fingerprint) for entry in manifest.identity.shards}
    with closing(DecodeSandbox(decoder=limits.decoder)) as sandbox, parquet_sandbox() as parquet:
        for shard in shards:
            missing = by_shard.get(shard.name, set())
            if not missing or (shard.name, shard.fingerprint) not in known:
                continue
            for item in read_shard(shard, reading, parquet.rows):
                if isinstance(item, Sample) and item.key in missing:
                    missing.discard(item.key)
                    yield from _decode(item, preprocess, limits, sandbox)
                    if not missing:
                        break


def _decode(
    sample: Sample, preprocess: Preprocess, limits: DecodeLimits, sandbox: DecodeSandbox
) -> Iterator[tuple[Place, Original]]:
    try:
        framed = sandbox.frame(sample.image, sample.boxes_xyxy, preprocess, limits_for(sample, limits))
    except UnreadableImageError:
        return
    yield (sample.shard, sample.key), Original(framed.pixels_HWC, framed.boxes_xyxy)
