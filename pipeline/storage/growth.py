"""Runs that grow: a run of the first images becomes one of more of them when its limit is raised or left out.

Rows depend on their image and on the settings alone, so the rows of the first images stay. A run of more images has
another id; its manifest lists the ids of the earlier limits, whose parts belong to it. Only the last chunk of an
earlier limit was cut: it may lack images, so it is removed and explained again.
"""

from collections.abc import Iterator, Sequence

from pipeline.storage.base import Store
from pipeline.storage.parts import Footer, stored_footer
from pipeline.storage.run_folder import PartName, part_names
from schemas.manifest import EarlierLimit, RunManifest, ShardEntry, differences


def grown_manifest(before: RunManifest, after: RunManifest) -> RunManifest | None:
    """Return the manifest of a run that has grown; None if `after` is no run of more of the same images.

    Args:
        before: the manifest in the folder.
        after: that of the run that takes the folder.
    """
    ours, theirs = before.identity, after.identity
    if differences(ours, theirs) != ["shards"] or not _begins(ours.shards, theirs.shards):
        return None
    shard = len(ours.shards) - 1
    cut = EarlierLimit(run_id=before.run_id, shard=shard, take=ours.shards[shard].take or 0)
    return after.model_copy(update={"grown_from": (*before.grown_from, cut), "started_at": before.started_at})


def _begins(first: Sequence[ShardEntry], longer: Sequence[ShardEntry]) -> bool:
    """Return whether the images of a limit are the first of those of a higher one, or of all."""
    if not first or len(first) > len(longer) or first[-1].take is None:
        return False
    last, same = first[-1], longer[len(first) - 1]
    more = same.take is None or same.take > (last.take or 0)
    return more and first[:-1] == longer[: len(first) - 1] and last.model_copy(update={"take": same.take}) == same


def is_cut(footer: Footer, manifest: RunManifest) -> bool:
    """Return whether a part is the last chunk of an earlier limit, which is explained again."""
    return manifest.has_cut(footer.run_id, footer.shard, last_chunk=footer.last_chunk)


def ends_shard(footer: Footer, manifest: RunManifest) -> bool:
    """Return whether a part is the last one of its shard in this run."""
    return footer.last_chunk and not is_cut(footer, manifest)


def drop_cut_parts(store: Store, manifest: RunManifest) -> None:
    """Remove the parts that earlier limits cut, so that they count as not done; those that were replaced stay.

    Raises:
        DamagedRunError: a part of such a shard cannot be read.
    """
    for earlier in manifest.grown_from:
        for part in _candidates(store, manifest, earlier):
            footer = stored_footer(store, part)
            if footer.run_id != earlier.run_id:
                break  # explained since, and so are those behind it
            if is_cut(footer, manifest):
                store.delete(part.receipt)
                store.delete(part.file)


def _candidates(store: Store, manifest: RunManifest, earlier: EarlierLimit) -> Iterator[PartName]:
    """Yield the parts of a shard in order, from the chunk on in which a limit ends; damage to a shard moves it on."""
    least = (earlier.take - 1) // manifest.identity.chunk_images
    return (part for part in part_names(store) if part.shard == earlier.shard and part.chunk >= least)
