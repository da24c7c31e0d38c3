"""How the images of a run are read and decoded again, from what its manifest says."""

from contextlib import closing
from dataclasses import dataclass

from pydantic import ValidationError

from pipeline.data.annotations import read_annotations
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.inputs import limits_of, reading_of, shards_of
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources import Reading, Shard
from pipeline.data.sources.listing import shard_at
from pipeline.data.sources.shards import KNOWN_KINDS
from pipeline.errors import ConfigError
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig
from schemas.manifest import RunManifest, ShardEntry


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


@dataclass(frozen=True)
class RunImages:
    """The shards of a run, and the rules by which their images are read and decoded.

    Attributes:
        entries: each shard by its name, as it was in the run, and where it was.
        listed: the folders and manifests of today, by name; other shards are looked at when they are needed.
        reading, limits, preprocess: how images are found, limited and framed.
    """

    entries: dict[str, tuple[ShardEntry, str]]
    listed: dict[str, Shard]
    reading: Reading
    limits: DecodeLimits
    preprocess: Preprocess

    @classmethod
    def of(cls, manifest: RunManifest) -> "RunImages":
        """Read the annotations of a run, list its folders and manifests, and import its decoder in a subprocess.

        Raises:
            ConfigError: one of them is gone, changed, or not valid in this version.
            StoreError: an object store cannot be reached.
        """
        config = run_config(manifest)
        known = any(entry.kind in KNOWN_KINDS for entry in manifest.identity.shards)
        shards = [shard for shard in shards_of(config.data) if shard.kind in KNOWN_KINDS] if known else []
        names = manifest.classes if manifest.identity.data.get("classes") == "model" else ()
        reading = reading_of(config.data, read_annotations(config, shards, names))
        limits = limits_of(manifest.identity.data)
        if limits.decoder is not None:
            with closing(DecodeSandbox(decoder=limits.decoder)) as sandbox:
                sandbox.digest()
        entries = zip(manifest.identity.shards, manifest.locations, strict=True)
        return cls(
            {entry.name: (entry, location) for entry, location in entries},
            {shard.name: shard for shard in shards},
            reading,
            limits,
            Preprocess.of(manifest.identity.data["preprocess"]),
        )

    def shard(self, name: str) -> Shard:
        """Find a shard again, and compare it with that of the run.

        Raises:
            ConfigError: the run has no such shard, it is gone, or it was replaced since.
            StoreError: its store cannot be reached.
        """
        if name not in self.entries:
            raise ConfigError.one("SHARD", f"the run has no shard '{name}'")
        entry, location = self.entries[name]
        found = self.listed.get(name) if entry.kind in KNOWN_KINDS else shard_at(location, name)
        if found is None or (found.kind, found.fingerprint) != (entry.kind, entry.fingerprint):
            what = f"'{name}' at {location} is not what the run read: it was replaced since"
            raise ConfigError.one("SHARD", what, "restore it")
        return found
