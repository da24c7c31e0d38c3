"""Compares the images of a run with those that `data.sample` drew or `data.keys` listed."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.sources import Draw
from pipeline.data.sources.key_list import WHERE, KeyList, read_keys
from pipeline.errors import CamatlasError
from pipeline.settings.data import DataConfig
from pipeline.storage.growth import ends_shard
from pipeline.storage.parts import Footer
from pipeline.storage.run_folder import PartName
from schemas.explanation import SHARD_STAGE
from schemas.manifest import RunManifest


class SelectionCheck:
    """Checks part by part that there is no other image, and at the end that no listed image is missing.

    Attributes:
        notes: what could not be checked.
    """

    def __init__(self, manifest: RunManifest) -> None:
        self._manifest = manifest
        self.notes: list[str] = []
        self._list: dict[str, Any] | None = manifest.identity.data.get("key_list")
        self._place, self._holds = self._selected()
        self._images: Counter[int] = Counter()
        self._chunks: Counter[int] = Counter()
        self._ends: dict[int, int] = {}
        self._damaged: set[int] = set()

    def _selected(self) -> tuple[str, Callable[[str, str], bool] | None]:
        """Return what selects the images, and whether an image is selected; None if all are, or if it is unknown."""
        if sample := self._manifest.identity.data.get("sample"):
            return "the sample", Draw(**sample).holds
        keys = None if self._list is None else self._listed(self._list["sha256"])
        return WHERE, None if keys is None else keys.holds

    def _listed(self, digest: str) -> KeyList | None:
        """Read the list again; None, with a note, if it is not what it was when the run began."""
        given = self._manifest.config["data"]["keys"]
        try:
            keys = read_keys(DataConfig(shards="-", keys=given).keys)
        except CamatlasError as error:
            reason = str(error)
        else:
            if keys is not None and keys.digest == digest:
                return keys
            reason = f"{WHERE}: '{given}' has changed since the run began"
        self.notes.append(f"{reason}; so the number of images was checked, but not whether they are those of the list")
        return None

    def part(self, table: pa.Table, part: PartName, footer: Footer) -> Iterator[str]:
        """Yield a problem if a part has images that are not selected, and count its images."""
        is_image = pc.not_equal(pc.fill_null(table["error_stage"], ""), SHARD_STAGE)
        groups = table.filter(is_image).select(["shard", "image_key"]).group_by(["shard", "image_key"])
        images = groups.aggregate([]).to_pylist()
        self._count(part, footer, len(images), damaged=not pc.all(is_image).as_py())
        if self._holds is None:
            return
        unexpected = [row["image_key"] for row in images if not self._holds(row["shard"], row["image_key"])]
        if unexpected:
            yield f"holds {len(unexpected)} images that are not in {self._place}, for example '{min(unexpected)}'"

    def _count(self, part: PartName, footer: Footer, images: int, *, damaged: bool) -> None:
        self._images[part.shard] += images
        self._chunks[part.shard] += 1
        if damaged:
            self._damaged.add(part.shard)
        if ends_shard(footer, self._manifest):
            self._ends[part.shard] = part.chunk + 1

    def problems(self) -> Iterator[str]:
        """Yield complete shards without damage that do not have as many images as were listed."""
        if self._list is None:
            return
        for shard, chunks in sorted(self._ends.items()):
            known = self._manifest.images[shard] if shard < len(self._manifest.images) else None
            is_whole = self._chunks[shard] == chunks and shard not in self._damaged
            if is_whole and known is not None and self._images[shard] != known:
                name = self._manifest.identity.shards[shard].name
                yield f"shard {shard} ({name}): {self._images[shard]} images, but {known} of {WHERE} are in it"
