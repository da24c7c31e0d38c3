"""The manifest of a run: what determines its rows, and where everything came from."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardEntry(_Frozen):
    """One shard, as it was when the run started."""

    name: str
    kind: str
    size: int
    """Bytes."""
    fingerprint: str
    """Digest of the size and of the first and last 64 KiB (tar, Parquet), or of the listing (folder)."""
    take: int | None = None
    """Number of leading samples that belong to the run; None means all."""


class RunIdentity(_Frozen):
    """Everything that determines the rows, and nothing about time, place, machine or number of workers."""

    code_version: str
    schema_version: int
    shards: tuple[ShardEntry, ...]
    chunk_images: int
    data: dict[str, Any]
    """How samples are read: columns, annotation digests, formats, limits, preprocessing."""
    model: dict[str, Any]
    """Architecture name, digest of the weights, target layer."""
    targets: str
    methods: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    seed: int
    precision: str
    maps: str


class EarlierLimit(_Frozen):
    """A run of fewer of the same images, from which a run has grown when its limit was raised."""

    run_id: str
    shard: int
    """Ordinal of the shard in which it ended, so that the last chunk of this shard was cut."""
    take: int
    """Number of images of that shard that it took."""


class RunManifest(_Frozen):
    """The content of `run.json`: the identity and the provenance of a run."""

    identity: RunIdentity
    locations: tuple[str, ...]
    """Path or URL of each shard when the run started, in the order of `identity.shards`."""
    images: tuple[int | None, ...] = ()
    """Number of images in each shard, None where it is unknown without reading; empty if it was not recorded."""
    classes: tuple[str, ...] = ()
    """Class names by index; empty when unknown."""
    account: dict[str, Any] | None = None
    """The label account (`pipeline.data.account`); None in runs of earlier versions."""
    config: dict[str, Any]
    """The run file as resolved."""
    packages: dict[str, str]
    code: dict[str, str]
    started_at: str
    grown_from: tuple[EarlierLimit, ...] = ()
    """The limits with which the run began; their parts are parts of this run, except for chunks that were cut."""

    @property
    def earlier_ids(self) -> frozenset[str]:
        """Return the ids that the run had with lower limits."""
        return frozenset(earlier.run_id for earlier in self.grown_from)

    def has_cut(self, run_id: str, shard: int, *, last_chunk: bool) -> bool:
        """Return whether a part is the chunk that an earlier limit cut: it lacks images, and is explained again."""
        return last_chunk and any((each.run_id, each.shard) == (run_id, shard) for each in self.grown_from)

    @property
    def run_id(self) -> str:
        """Return the hash of the identity (sha256, first 16 hex digits)."""
        return digest_of(self.identity.model_dump())[:16]

    @property
    def has_metadata(self) -> bool:
        """Return whether the rows have the column `metadata`."""
        return bool(self.identity.data.get("metadata"))

    def class_name(self, index: int) -> str:
        """Return the name of a class, or its index where no name is known."""
        return self.classes[index] if 0 <= index < len(self.classes) else str(index)

    def to_json(self) -> bytes:
        """Serialise the manifest as canonical JSON, with its run id and a digest of all other fields."""
        fields = {"run_id": self.run_id, **self.model_dump(exclude=set() if self.grown_from else {"grown_from"})}
        return _encoded({"sha256": digest_of(fields), **fields})

    @classmethod
    def from_json(cls, text: bytes) -> "RunManifest":
        """Parse a manifest, and check its digest and its run id.

        Raises:
            ValueError: the text is not a manifest, or was changed after it was written.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("a manifest is a JSON object")
        sha256 = fields.pop("sha256", None)
        known = digest_of(fields)
        stated = fields.pop("run_id", None)
        try:
            manifest = cls.model_validate(fields)
        except ValidationError as error:
            places = [".".join(map(str, problem["loc"])) for problem in error.errors()]
            raise ValueError(f"fields are missing or wrong: {', '.join(places)}") from None
        if stated != manifest.run_id:
            raise ValueError(f"run_id {stated} does not belong to this identity ({manifest.run_id})")
        if sha256 != known:
            raise ValueError("its sha256 is not that of its content")
        return manifest


def canonical_json(value: object) -> str:
    """Serialise a value as canonical JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: object) -> str:
    """Hash the canonical JSON of a value (sha256, hexadecimal)."""
    return hashlib.sha256(_encoded(value)).hexdigest()


def _encoded(value: object) -> bytes:
    """Encode canonical JSON as bytes; a lone surrogate, from a file name that is not UTF-8, becomes its JSON escape."""
    return canonical_json(value).encode("utf-8", "backslashreplace")


def differences(mine: RunIdentity, theirs: RunIdentity) -> list[str]:
    """List the identity fields in which two runs differ."""
    ours, others = (json.loads(canonical_json(identity.model_dump())) for identity in (mine, theirs))
    return [name for name in RunIdentity.model_fields if ours[name] != others[name]]


def changed_plugins(mine: RunIdentity, theirs: RunIdentity) -> list[str]:
    """List the methods and metrics of the user's whose source, but nothing else of them, differs between two runs."""
    pairs = ((mine.methods, theirs.methods), (mine.metrics, theirs.metrics))
    return [
        label
        for ours, others in pairs
        for label, fields in ours.items()
        if label in others and fields != others[label] and _without_source(fields) == _without_source(others[label])
    ]


def _without_source(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a method or metric, without the digest of a plug-in's source."""
    plugin = fields.get("plugin")
    return fields | {"plugin": plugin | {"sha256": ""}} if isinstance(plugin, dict) else fields
