"""The original images of a run, for pictures: read again from the shards that the manifest names."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from PIL import Image
from pydantic import ValidationError

from pipeline.data.decode import DecodeLimits, UnreadableImageError
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.sources import Reading, Sample, read_shard
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.parquet_sandbox import ParquetSandbox
from pipeline.data.sources.shards import Boxes
from pipeline.errors import CamatlasError, ConfigError
from pipeline.run.preflight import read_annotations
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig
from schemas.manifest import RunManifest


@dataclass(frozen=True)
class Original:
    """What the model saw of one image: the picture at the model's size, with the boxes moved along."""

    image: Image.Image
    boxes_xyxy: Boxes | None


def run_config(manifest: RunManifest) -> RunConfig:
    """Read the run file that a manifest keeps.

    Raises:
        ConfigError: this version does not understand it.
    """
    try:
        return RunConfig.model_validate(manifest.config)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise ConfigError.one(
            "RUN", f"its run file is not understood ({wrong})", "use the version that made it"
        ) from None


def originals(manifest: RunManifest, wanted: Iterable[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Original]]:
    """Find images by (shard, image key); those whose shard is gone or changed are left out.

    Reads each shard until all wanted images of it are found.
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
    with closing(DecodeSandbox()) as apart, closing(ParquetSandbox()) as parquet:
        for shard in shards:
            missing = by_shard.get(shard.name, set())
            if not missing or (shard.name, shard.fingerprint) not in known:
                continue
            for item in read_shard(shard, reading, parquet.rows):
                if isinstance(item, Sample) and item.key in missing:
                    missing.discard(item.key)
                    yield from _shown(item, manifest, apart)
                    if not missing:
                        break


def _shown(sample: Sample, manifest: RunManifest, apart: DecodeSandbox) -> Iterator[tuple[tuple[str, str], Original]]:
    data: dict[str, Any] = manifest.identity.data
    limits = DecodeLimits(tuple(data["formats"]), data["max_pixels"])
    try:
        framed = apart.frame(sample.image, sample.boxes_xyxy, Preprocess(**data["preprocess"]), limits)
    except UnreadableImageError:
        return
    yield (sample.shard, sample.key), Original(Image.fromarray(framed.pixels_HWC), framed.boxes_xyxy)
