"""Lists the images that a run file names, and checks the settings that say how they are read and decoded."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.decoder import here
from pipeline.data.formats import format_mistakes, known_formats, suffixes_of
from pipeline.data.limits import DecodeLimits
from pipeline.data.shrinking import check_resizer
from pipeline.data.sources import Reading, Shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import OF_MODEL, ClassTable
from pipeline.data.sources.columns import Columns, TableFacts, check_columns, has_path_keys, label_column, names_of
from pipeline.data.sources.hive import partition_columns
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.manifest import list_manifest
from pipeline.data.sources.stored_names import names_to_read_by
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.data.sources.tar_names import MemberRules
from pipeline.errors import ConfigError, Mistake, Mistakes
from pipeline.settings.data import DataConfig, MembersConfig
from pipeline.settings.model import PreprocessConfig
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig

_CHOICES = ("truncated", "alpha", "too_large")
"""Settings of decoding that an identity records only if they are not the default."""
_CHANNELS_OF_FILES = (1, 3)
"""Channels that image files can be decoded to: grey and RGB."""


def decode_limits(config: RunConfig) -> DecodeLimits:
    """Return the rules of decoding; the user's decoder is imported once, in a subprocess.

    Raises:
        ConfigError: an unknown format, a decoder that cannot be used, or settings that contradict each other.
    """
    mistakes = Mistakes()
    data = config.data
    names = known_formats(data.formats)
    mistakes.found.extend(format_mistakes(names))
    mistakes.found.extend(_contradictions(config))
    with mistakes.collecting():
        check_resizer(data.resizer)
    limits = DecodeLimits(
        names, data.max_pixels, data.window, truncated=data.truncated, alpha=data.alpha, too_large=data.too_large
    )
    if data.decoder is not None:
        with mistakes.collecting():
            source = here(data.decoder)
            with closing(DecodeSandbox(decoder=source)) as sandbox:
                limits = replace(limits, decoder=replace(source, digest=sandbox.digest()))
    mistakes.raise_if_any()
    return limits


def framing_of(data: DataConfig, preprocess: Preprocess) -> Preprocess:
    """Return a model's preprocessing with the resizer of a run; Pillow resizes what decoders return."""
    return replace(preprocess, resizer="pillow" if data.decoder is not None else data.resizer)


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
        **{name: identity[name] for name in _CHOICES if name in identity},
    )


def data_identity(data: DataConfig, shards: Sequence[Shard], reading: Reading, limits: DecodeLimits) -> dict[str, Any]:
    """Return what a run's identity records of its data, besides the shards and how images fit the model."""
    drawn: dict[str, Any] = {} if reading.draw is None else {"sample": vars(reading.draw)}
    listed = {} if reading.keys is None else {"key_list": reading.keys.identity()}
    return {
        **drawn,
        **listed,
        "annotations": reading.annotations.digest(),
        **({"classes": "model"} if reading.annotations.classes.source == OF_MODEL else {}),
        "columns": data.columns.named(),
        **annotations_identity(data, shards),
        **tables_identity(data, shards, reading.annotations.classes),
        **decoding_identity(data, limits),
    }


def decoding_identity(data: DataConfig, limits: DecodeLimits) -> dict[str, Any]:
    """Return the settings of decoding that a run's identity records; those that older runs did not have only if set."""
    identity: dict[str, Any] = {"formats": sorted(limits.formats), "max_pixels": limits.max_pixels}
    if limits.window != "dtype":
        identity["window"] = limits.window
    if limits.decoder is not None:
        identity["decoder"] = {"name": limits.decoder.name, "source": limits.decoder.digest}
    if data.decode == "device":
        identity["decode"] = "device"
    identity |= {
        name: getattr(limits, name) for name in _CHOICES if getattr(limits, name) != getattr(DecodeLimits, name)
    }
    if data.suffixes is not None:
        identity["suffixes"] = sorted(data.suffixes)
    if data.members != MembersConfig():
        identity["members"] = data.members.model_dump()
    return identity


def reading_of(data: DataConfig, annotations: Annotations) -> Reading:
    """Return how the samples of a run are read."""
    members = MemberRules(data.members.image, data.members.label, tuple(data.members.ignore))
    return Reading(annotations, _table_columns(data), suffixes=image_suffixes(data), members=members)


def _table_columns(data: DataConfig) -> Columns:
    """Return the columns of tables by role; those of manifests alone are left out."""
    columns = {role: name for role, name in data.columns.named().items() if role not in ("path", "header")}
    return columns | ({"metadata": list(data.metadata)} if data.metadata else {})


def shards_of(data: DataConfig, only: Collection[str] | None = None) -> list[Shard]:
    """List the shards of a run, in order, or the images of its manifest as shards; tables must have its columns.

    Args:
        data: the section of the run file.
        only: names of shards to list; others in object stores are left out without a request.

    Raises:
        ConfigError: as `list_shards`, `check_columns` and `list_manifest`.
        StoreError: an object store cannot be reached.
    """
    if data.manifest is not None and data.split is not None:
        what = f"'{data.split}', but a manifest has no splits"
        raise ConfigError.one("data.split", what, "leave it out, and list only the images of this split")
    if data.manifest is not None:
        return list_manifest(data)
    if not data.shards:
        return []
    shards = list_shards(data.shards, only, data.suffixes, data.split, tuple(data.members.ignore))
    check_columns(
        {shard.name: _with_partitions(shard.table, shard.location) for shard in shards if shard.table is not None},
        _table_columns(data),
    )
    return shards


def _with_partitions(table: TableFacts, location: str) -> TableFacts:
    """Return a table with the columns that the names of its folders stand for."""
    folders = tuple((name, "string") for name in partition_columns(location))
    return replace(table, columns=(*table.columns, *folders))


def tables_identity(data: DataConfig, shards: Sequence[Shard], classes: ClassTable) -> dict[str, Any]:
    """Return what a run's identity must know of its tables: keys from paths, and numbers that stand for names."""
    columns = data.columns.named()
    tables = [shard.table for shard in shards if shard.table is not None]
    identity: dict[str, Any] = {}
    if any(has_path_keys(table, columns) for table in tables):
        identity["keys"] = "path"
    labels = {label_column(table, data.columns.label) for table in tables} - {data.columns.label}
    if labels:
        identity["labels"] = sorted(labels)
    names = {tuple(names_to_read_by(shard, data.columns.label, classes)) for shard in shards}
    renumbered = sorted(each for each in names if [classes.index(name) for name in each] != list(range(len(each))))
    return identity | ({"label_names": renumbered} if renumbered else {})


def annotations_identity(data: DataConfig, shards: Sequence[Shard]) -> dict[str, Any]:
    """Return what a run's identity records of labels, boxes and metadata, where it is not what older runs had."""
    names = ("boxes_format", "boxes_relative", "label_separator", "metadata")
    given = {name: getattr(data, name) for name in names}
    identity = {name: value for name, value in given.items() if value != DataConfig.model_fields[name].default}
    used = {*data.metadata, *(name for one in data.columns.named().values() for name in names_of(one))}
    folders = {name for s in shards if s.kind == "parquet" for name in partition_columns(s.location)} & used
    return {**identity, "hive": sorted(folders)} if folders else identity


def image_suffixes(data: DataConfig) -> tuple[str, ...]:
    """Return the suffixes of the images in tars; empty if a decoder may read any member that is not an annotation."""
    if data.suffixes is not None:
        return tuple(data.suffixes)
    return (*IMAGE_SUFFIXES, *suffixes_of(known_formats(data.formats))) if data.decoder is None else ()


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
    if data.decoder is not None and data.resizer != DataConfig.model_fields["resizer"].default:
        mistakes.append(Mistake("data.resizer", "has no effect with data.decoder", "leave it out"))
    if data.decoder is not None and data.decode == "device":
        mistakes.append(Mistake("data.decode", "has no effect with data.decoder", "leave it out"))
    return mistakes
