"""Ownership of run folders: a run takes an empty folder or its own, even without a manifest, and refuses others."""

from pipeline.errors import ConfigError
from pipeline.storage.base import Store
from pipeline.storage.compaction import drop
from pipeline.storage.growth import drop_cut_parts, grown_manifest
from pipeline.storage.parts import run_ids
from pipeline.storage.run_folder import MANIFEST, PartName, find_manifest, is_temporary, part_names
from schemas.manifest import RunManifest, changed_plugins, differences


def take_ownership(store: Store, manifest: RunManifest) -> bool:
    """Take ownership of the folder for this run; return True if the run is new, False if it is resumed.

    A lost manifest is rewritten if every part in the folder belongs to this run. A run of fewer of the same images
    grows into this one; its merged copy is removed.

    Raises:
        ConfigError: the folder holds another run, or other files.
        DamagedRunError: the manifest is damaged, or it is lost and a part's footer is damaged.
    """
    existing = check_ownership(store, manifest)
    if existing is not None and (grown := grown_manifest(existing, manifest)):
        drop(store)
        store.replace(MANIFEST, grown.to_json())
        existing = grown
    if existing is not None:
        drop_cut_parts(store, existing)
    new = store.publish(MANIFEST, manifest.to_json())
    if not new:
        check_ownership(store, manifest)  # another driver may have published the manifest of another run first
    return new and not part_names(store)


def check_ownership(store: Store, manifest: RunManifest) -> RunManifest | None:
    """Return the manifest in the folder, if there is one; write nothing.

    Raises:
        ConfigError: the folder holds another run, or other files.
    """
    existing = find_manifest(store)
    if existing is None:
        _check_orphans(store, manifest)
    elif existing.run_id != manifest.run_id and not grown_manifest(existing, manifest):
        if grown_manifest(manifest, existing):
            raise ConfigError.one(
                "data.limit",
                f"'{store.url}' holds a run of more of these images ({existing.run_id}), and a run does not shrink",
                "leave the limit out or raise it, choose another folder, or query the first images of this run",
            )
        fields = ", ".join(differences(manifest.identity, existing.identity))
        plugins = ", ".join(changed_plugins(manifest.identity, existing.identity))
        changed = f" (the source of the plug-ins {plugins} has changed)" if plugins else ""
        raise ConfigError.one(
            "output.path",
            f"'{store.url}' holds another run ({existing.run_id}); it differs in: {fields}{changed}",
            "choose another folder, or the run file that made this one",
        )
    return existing


def _check_orphans(store: Store, manifest: RunManifest) -> None:
    """Raise ConfigError unless a folder without a manifest holds only parts of this run and their companion folders."""
    names = [name for name in store.names() if not is_temporary(name)]
    parts = [part for name in names if (part := PartName.parse(name))]
    foreign = [name for name in names if not (parts and (name.startswith("_") or PartName.parse(name)))]
    if foreign:
        raise ConfigError.one(
            "output.path",
            f"'{store.url}' is not empty and holds no run (found '{foreign[0]}')",
            "choose an empty folder",
        )
    if others := run_ids(store, parts) - {manifest.run_id}:
        raise ConfigError.one(
            "output.path",
            f"'{store.url}' has no {MANIFEST} and holds parts of another run ({min(others)})",
            "choose another folder, or the run file that made this one",
        )
