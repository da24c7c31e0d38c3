"""Reads the original images of a run again, from the shards that its manifest names."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from PIL import Image
from pydantic import ValidationError

from pipeline.data.annotations import read_annotations
from pipeline.data.decode import DecodeLimits, UnreadableImageError
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.sources import Reading, Sample, read_shard
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.parquet_sandbox import ParquetSandbox
from pipeline.data.sources.shards import Boxes
from pipeline.errors import CamatlasError, ConfigError
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig
from schemas.manifest import RunManifest


@dataclass(frozen=True)
class Original:
    """An image as the model sees it, resized and cropped, with its boxes transformed accordingly."""

    image: Image.Image
    boxes_xyxy: Boxes | None


def run_config(manifest: RunManifest) -> RunConfig:
    """Parse the run file stored in a manifest.

    Raises:
        ConfigError: this version of camatlas cannot parse it.
    """
    try:
        return RunConfig.model_validate(manifest.config)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise ConfigError.one(
            "RUN", f"its run file is not valid in this version ({wrong})", "use the version that created the run"
        ) from None


def originals(manifest: RunManifest, wanted: Iterable[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Original]]:
    """Yield images by (shard, image key); images of missing or changed shards are left out.

    Reads each shard until all requested images of it are found.
    """
    by_shard: dict[str, set[str]] = defaultdict(set)
    for shard_name, key in wanted:
        by_shard[shard_name].add(key)
    try:
        config = run_config(manifest)
        shards = list_shards(config.data.shards, only=by_shard)
        reading = Reading(read_annotations(config, shards), config.data.columns.model_dump())
    except CamatlasError:
        return
    known = {(entry.name, entry.fingerprint) for entry in manifest.identity.shards}
    with closing(DecodeSandbox()) as sandbox, closing(ParquetSandbox()) as parquet:
        for shard in shards:
            missing = by_shard.get(shard.name, set())
            if not missing or (shard.name, shard.fingerprint) not in known:
                continue
            for item in read_shard(shard, reading, parquet.rows):
                if isinstance(item, Sample) and item.key in missing:
                    missing.discard(item.key)
                    yield from _decode(item, manifest, sandbox)
                    if not missing:
                        break


def _decode(
    sample: Sample, manifest: RunManifest, sandbox: DecodeSandbox
) -> Iterator[tuple[tuple[str, str], Original]]:
    data: dict[str, Any] = manifest.identity.data
    limits = DecodeLimits(tuple(data["formats"]), data["max_pixels"])
    try:
        framed = sandbox.frame(sample.image, sample.boxes_xyxy, Preprocess(**data["preprocess"]), limits)
    except UnreadableImageError:
        return
    yield (sample.shard, sample.key), Original(Image.fromarray(framed.pixels_HWC), framed.boxes_xyxy)
