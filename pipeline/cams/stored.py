"""Maps that were made elsewhere, as a method: our metrics judge them as they judge our own.

Legend: B rows (image, target), (u, v) grid of the map.
"""

import re
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Adapter, Cost, Needs, NetShape, Paper
from pipeline.errors import ConfigError, DamagedRunError
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe
from pipeline.storage.map_files import MapFiles
from pipeline.storage.stored_maps import Found, StoredMaps


@dataclass(frozen=True, config=STRICT)
class Stored(Adapter):
    """Maps that were made elsewhere, read by image key and class.

    M = the stored map of the image and its target class

    Read from a run folder, or from Parquet files with the columns key, map, height, width, and optionally target,
    method, dtype, min and max (also under the names of a run: image_key, map_height, ...). A map is a list of numbers,
    or bytes row by row: f32, or what dtype says (f16 and u8 need min and max). Where classes are stored, they must be
    those that are explained; maps without a class are taken for any.

    An image without a map, a map of another class, and a map that is damaged or not finite are failure rows (code
    stored) of this method. The digest of the files is part of the run's identity. Metrics that need maps of changed
    images are refused. Name in the run: stored_ and the method.

    Parameters:
        path: path or URL of a run folder, a Parquet file, or several by `*` in the last part of the path.
        method: name of the method there; needed if there are several.
    """

    path: str
    method: str | None = None

    name: ClassVar[str] = "stored"
    needs: ClassVar[Needs] = Needs(activations=False)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper("", "Maps made elsewhere", "", 0, "")
    redraws: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Name of the method in a run that gives it none."""
        label = f"{self.name}_{self.method}"
        return label if self.method and re.fullmatch(r"[A-Za-z0-9_]{1,63}", label) else self.name

    def opened(self) -> None:
        """Find the files, index their maps, and keep their digest, by which workers know them; raises ConfigError."""
        digest = MapFiles.find(self.path).digest()
        _maps(self.path, self.method, digest)
        vars(self)["_sha256"] = digest  # not a parameter: it follows from what the path holds

    def identity(self) -> dict[str, Any]:
        """Return what determines the maps: the digest of the files, wherever they lie, and the method."""
        return {"name": self.name, "method": self.method, "sha256": self._digest}

    def notes(self) -> Sequence[str]:
        """Say that maps without a class are taken for any."""
        if self._maps.has_targets:
            return ()
        return (f"the maps in '{self.path}' name no class, so each is taken for every class that is explained",)

    def problem(self, evidence: Evidence, probe: Probe) -> str:  # noqa: ARG002 - the maps suit any model
        """Return "": stored maps need nothing of the model."""
        return ""

    def check_keys(self, keys: Sequence[str]) -> str:
        """Say that none of the first images of a run has a map, with examples of both; "" if one has."""
        if not keys or any(self._maps.holds(key) for key in keys):
            return ""
        ours, theirs = (", ".join(f"'{key}'" for key in some[:2]) for some in (keys, self._maps.examples))
        return f"none of the first {len(keys)} keys is in '{self.path}': the images are {ours}, the maps {theirs}"

    def groups(self, evidence: Evidence) -> Sequence[Hashable]:
        """Return the shape of each row's map; None for a row that has none."""
        return [None if found.map_uv is None else found.map_uv.shape for found in self._found(evidence)]

    def failure(self, key: str, target: int) -> str:
        """Say why an image and class have no map; "" if they have one."""
        return self._maps.find(key, target).problem

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - nothing is computed
        """Return the stored maps (B, u, v); those of rows that have none are NaN."""
        maps = [found.map_uv for found in self._found(evidence)]
        shapes = {map_uv.shape for map_uv in maps if map_uv is not None} or {(1, 1)}
        if len(shapes) > 1:
            raise ConfigError.one(
                "explain.methods.stored",
                f"the maps of these images have different shapes: {' and '.join(map(str, sorted(shapes)))}",
                "explain images whose maps have one shape together",
            )
        (shape,) = shapes
        missing_uv = torch.full(shape, torch.nan)
        rows = [missing_uv if map_uv is None else torch.from_numpy(map_uv) for map_uv in maps]
        return torch.stack(rows).to(evidence.pixels_BCHW.device)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Return a cost of zero."""
        return Cost()

    @property
    def _digest(self) -> str:
        digest = vars(self).get("_sha256")
        if digest is None:
            raise ValueError("the stored maps were not opened")
        return str(digest)

    @property
    def _maps(self) -> StoredMaps:
        return _maps(self.path, self.method, self._digest)

    def _found(self, evidence: Evidence) -> list[Found]:
        pairs = zip(evidence.keys, evidence.targets_B.tolist(), strict=True)
        return [self._maps.find(key, target) for key, target in pairs]


@lru_cache(maxsize=16)
def _maps(path: str, method: str | None, digest: str) -> StoredMaps:
    """Index the maps once in each process; raises DamagedRunError if they are not those of the digest."""
    files = MapFiles.find(path)
    if files.digest() != digest:
        raise DamagedRunError(f"the stored maps in {path} have changed since the run began; run the same command again")
    return StoredMaps(files, method)
