"""Compares the labels in the rows of a run with its label account, which was made before the work."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.account import LabelAccount
from pipeline.data.sources.shards import KNOWN_KINDS
from schemas.manifest import RunManifest


class LabelTally:
    """Counts the labels of explained images, part by part, in shards whose labels were known before the work."""

    def __init__(self, manifest: RunManifest) -> None:
        self._manifest = manifest
        self.account = account_of(manifest)
        self._known = {shard.name for shard in manifest.identity.shards if shard.kind in KNOWN_KINDS}
        self._found: Counter[int | None] = Counter()

    def add(self, rows: pa.Table) -> None:
        """Count the images of one part; an image has the same label in all of its rows."""
        if self.account is None or not self._known:
            return
        explained = rows.filter(pc.is_valid(rows["map"])).select(["shard", "image_key", "label"])
        images = explained.group_by(["shard", "image_key"]).aggregate([("label", "max")])
        listed: list[dict[str, Any]] = images.to_pylist()
        self._found.update(row["label_max"] for row in listed if row["shard"] in self._known)

    def problems(self) -> Iterator[str]:
        """Yield contradictions: more images of a class, or without a label, than the account knows."""
        if self.account is None:
            return
        known = Counter({one.index: one.images for one in self.account.classes})
        more = {index: count for index, count in self._found.items() if index is not None and count > known[index]}
        if more:
            index = min(more)
            name = self._manifest.class_name(index)
            yield (
                f"{sum(more.values()):,} images have labels that contradict the label account of run.json, for example "
                f"{more[index]:,} of class {index}{f' ({name})' if name != str(index) else ''}, where the account has "
                f"{known[index]:,}"
            )
        unlabelled = self.account.images - self.account.labelled + self.account.several  # a row has one label or none
        if self._found[None] > unlabelled:
            yield (
                f"{self._found[None]:,} images have no label, but by the label account of run.json only {unlabelled:,} "
                "have none"
            )


def account_of(manifest: RunManifest) -> LabelAccount | None:
    """Return the label account of a run; None if its version did not make one."""
    return None if manifest.account is None else LabelAccount.from_json(manifest.account)
