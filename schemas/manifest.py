"""The manifest of a run: what determines its rows, and where everything came from."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardEntry(_Frozen):
    """One shard as the run was started with it."""

    name: str
    kind: str
    size: int
    """Bytes."""
    fingerprint: str
    """Digest of the size and of the content's edges (tar, Parquet) or of the listing (folder)."""
    take: int | None = None
    """How many leading samples belong to the run; None means all."""


class RunIdentity(_Frozen):
    """Exactly what determines the rows; nothing about time, place, machine or number of workers."""

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


class RunManifest(_Frozen):
    """`run.json`: the identity and the provenance of a run."""

    identity: RunIdentity
    locations: tuple[str, ...]
    """Where each shard lay when the run was started, in the order of `identity.shards`."""
    images: tuple[int | None, ...] = ()
    """How many images each shard holds, where that is known without reading it; empty when it was not noted."""
    classes: tuple[str, ...] = ()
    """Class names by index; empty when unknown."""
    config: dict[str, Any]
    """The run file as resolved."""
    packages: dict[str, str]
    code: dict[str, str]
    started_at: str

    @property
    def run_id(self) -> str:
        """The hash of exactly what determines the rows (sha256, first 16 hex digits)."""
        return digest_of(self.identity.model_dump())[:16]

    def class_name(self, index: int) -> str:
        """Name a class; its number where no name is known."""
        return self.classes[index] if 0 <= index < len(self.classes) else str(index)

    def to_json(self) -> bytes:
        """Write the manifest as canonical JSON with its run id and a digest of everything beside it."""
        fields = {"run_id": self.run_id, **self.model_dump()}
        return _encoded({"sha256": digest_of(fields), **fields})

    @classmethod
    def from_json(cls, text: bytes) -> "RunManifest":
        """Read a manifest and check that its digest and its run id belong to it.

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
    """Write JSON in one canonical form: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: object) -> str:
    """Hash a value by its canonical JSON (sha256, hexadecimal)."""
    return hashlib.sha256(_encoded(value)).hexdigest()


def _encoded(value: object) -> bytes:
    """Write canonical JSON as bytes; a lone surrogate, from a file name that is not UTF-8, becomes its JSON escape."""
    return canonical_json(value).encode("utf-8", "backslashreplace")


def differences(mine: RunIdentity, theirs: RunIdentity) -> list[str]:
    """Name the identity fields in which two runs differ."""
    ours, others = (json.loads(canonical_json(identity.model_dump())) for identity in (mine, theirs))
    return [name for name in RunIdentity.model_fields if ours[name] != others[name]]
