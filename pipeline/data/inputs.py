"""Checks the settings of a run file that say how images are decoded, before any image is read."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.decoder import here
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources.hive import partition_columns
from pipeline.data.sources.shards import Shard
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.errors import Mistake, Mistakes, nearest
from pipeline.settings.data import DataConfig
from pipeline.settings.model import PreprocessConfig
from pipeline.settings.run_file import RunConfig

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")
_CHANNELS_OF_FILES = (1, 3)
"""Channels that image files can be decoded to: grey and RGB."""


def decode_limits(config: RunConfig) -> DecodeLimits:
    """Return the rules of decoding; the user's decoder is imported once, in a subprocess.

    Raises:
        ConfigError: an unknown format, a decoder that cannot be used, or settings that contradict each other.
    """
    mistakes = Mistakes()
    data = config.data
    names = [name.upper() for name in data.formats]
    mistakes.found.extend(
        Mistake("data.formats", f"unknown format '{name}'", nearest(name, FORMATS))
        for name in names
        if name not in FORMATS
    )
    mistakes.found.extend(_contradictions(config))
    limits = DecodeLimits(tuple(names), data.max_pixels, data.window)
    if data.decoder is not None:
        with mistakes.collecting():
            source = here(data.decoder)
            with closing(DecodeSandbox(decoder=source)) as sandbox:
                limits = replace(limits, decoder=replace(source, digest=sandbox.digest()))
    mistakes.raise_if_any()
    return limits


def limits_of(identity: Mapping[str, Any]) -> DecodeLimits:
    """Return the rules of decoding of an earlier run, from the section `data` of its identity.

    Its decoder is searched where the present command runs. It must have the source that it had in the run.
    """
    window, decoder = identity.get("window", "dtype"), identity.get("decoder")
    return DecodeLimits(
        tuple(identity["formats"]),
        identity["max_pixels"],
        tuple(window) if isinstance(window, list) else window,
        None if decoder is None else replace(here(decoder["name"]), digest=decoder["source"]),
    )


def decoding_identity(data: DataConfig, limits: DecodeLimits) -> dict[str, Any]:
    """Return the settings of decoding that a run's identity records; those that older runs did not have only if set."""
    identity: dict[str, Any] = {"formats": sorted(limits.formats), "max_pixels": limits.max_pixels}
    if limits.window != "dtype":
        identity["window"] = limits.window
    if limits.decoder is not None:
        identity["decoder"] = {"name": limits.decoder.name, "source": limits.decoder.digest}
    if data.suffixes is not None:
        identity["suffixes"] = sorted(data.suffixes)
    return identity


def annotations_identity(data: DataConfig, shards: Sequence[Shard]) -> dict[str, Any]:
    """Return what a run's identity records of labels, boxes and metadata, where it is not what older runs had."""
    names = ("boxes_format", "boxes_relative", "label_separator", "metadata")
    given = {name: getattr(data, name) for name in names}
    identity = {name: value for name, value in given.items() if value != DataConfig.model_fields[name].default}
    columns = data.columns.named().values()
    used = {*data.metadata, *(name for names in columns for name in ([names] if isinstance(names, str) else names))}
    folders = {name for s in shards if s.kind == "parquet" for name in partition_columns(s.location)} & used
    return {**identity, "hive": sorted(folders)} if folders else identity


def image_suffixes(data: DataConfig) -> tuple[str, ...]:
    """Return the suffixes of the images in tars; empty if a decoder may read any member that is not an annotation."""
    if data.suffixes is not None:
        return tuple(data.suffixes)
    return IMAGE_SUFFIXES if data.decoder is None else ()


def _contradictions(config: RunConfig) -> list[Mistake]:
    data, preprocess = config.data, config.model.preprocess
    mistakes = []
    channels = preprocess.channels if isinstance(preprocess, PreprocessConfig) else 3
    if data.decoder is None and channels not in _CHANNELS_OF_FILES:
        mistakes.append(
            Mistake(
                "data.decoder",
                f"is required where model.preprocess.channels is {channels}: image files give 1 or 3 channels",
                f"name a function package.module:function from bytes to an array (H, W, {channels})",
            )
        )
    if data.decoder is not None and data.formats != DataConfig.model_fields["formats"].default:
        mistakes.append(Mistake("data.formats", "has no effect with data.decoder", "leave it out; see data.suffixes"))
    return mistakes
