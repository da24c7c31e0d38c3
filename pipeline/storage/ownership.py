"""Whose a run folder is: a run claims an empty one, its own, or its own whose manifest was lost; no other."""

from pipeline.errors import ConfigError
from pipeline.storage.base import Store
from pipeline.storage.parts import run_ids
from pipeline.storage.run_folder import MANIFEST, PartName, is_temporary, manifest_there, part_names
from schemas.manifest import RunManifest, differences


def take_ownership(store: Store, manifest: RunManifest) -> bool:
    """Make the folder belong to this run; True when it is new, False when the run is resumed.

    A manifest that was lost is written again when every part of the folder is of this run.

    Raises:
        ConfigError: the folder holds another run, or files that are no run.
        DamagedRunError: its manifest, or the footer of a part without one, is damaged.
    """
    check_ownership(store, manifest)
    new = store.publish(MANIFEST, manifest.to_json())
    if not new:
        check_ownership(store, manifest)  # another driver may have been first, with another run
    return new and not part_names(store)


def check_ownership(store: Store, manifest: RunManifest) -> None:
    """Refuse a folder that holds another run, or files that are no run, without writing anything."""
    there = manifest_there(store)
    if there is None:
        _check_orphans(store, manifest)
    elif there.run_id != manifest.run_id:
        fields = ", ".join(differences(manifest.identity, there.identity))
        raise ConfigError.one(
            "output.path",
            f"'{store.url}' holds another run ({there.run_id}); it differs in: {fields}",
            "choose another folder, or the run file that made this one",
        )


def _check_orphans(store: Store, manifest: RunManifest) -> None:
    """Without a manifest, a folder may hold nothing but parts of this run, and what lies beside parts."""
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
            f"'{store.url}' has no {MANIFEST}, and holds parts of another run ({min(others)})",
            "choose another folder, or the run file that made this one",
        )
