"""The runs that the viewer can show: one run, two, or the runs of a folder; opened when they are first looked at."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import CamatlasError, ConfigError, nearest
from pipeline.results.query import open_run
from pipeline.storage.run_folder import MANIFEST, part_names
from pipeline.storage.store import open_store
from pipeline.viewer.bounded import Bounded
from pipeline.viewer.engine import Engine
from pipeline.viewer.filters import Filters
from pipeline.viewer.images import Grounds
from pipeline.viewer.index import Ids, RunIndex
from pipeline.viewer.maps import MapReader
from pipeline.viewer.selection import ids_of
from pipeline.viewer.statistics import Arrays

_SELECTIONS_BYTES = 24_000_000
_LISTING_SECONDS = 10.0
"""How long a listing of the parts is believed."""


class OpenedRun:
    """A run with everything that is remembered of it while it is looked at."""

    def __init__(self, index: RunIndex) -> None:
        self.index = index
        self.maps = MapReader(index.run)
        self.grounds = Grounds(index.run)
        self.arrays = Arrays(index)
        self._selections: Bounded[Ids] = Bounded(_SELECTIONS_BYTES, lambda ids: ids.nbytes)
        self._listed, self._new, self._trouble = time.monotonic(), 0, ""

    def ids(self, filters: Filters) -> Ids:
        """Return the ids of the rows that filters leave, in their order; remembers the last ones."""
        return self._selections.get(filters, lambda: ids_of(self.index, filters))

    def close(self) -> None:
        """Free the tables and end the processes that decode images."""
        self.grounds.close()
        self.index.drop()

    def news(self) -> tuple[int, str]:
        """Count the chunks finished since the run was opened, or say why not; looks at most every ten seconds."""
        if time.monotonic() - self._listed > _LISTING_SECONDS:
            self._listed = time.monotonic()
            try:
                self._new = len(set(part_names(self.index.run.store)).difference(self.index.run.parts))
                self._trouble = ""
            except (CamatlasError, OSError) as error:
                self._trouble = str(error)
        return self._new, self._trouble


@dataclass(frozen=True)
class Place:
    """Where a run lies, and how it is called."""

    name: str
    url: str


class Library:
    """Opens runs by name, each once, and again on request."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = {place.name: place for place in places}
        self.engine = Engine()
        self._opened: dict[str, OpenedRun] = {}
        self._count = 0
        self._opening = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the runs."""
        return tuple(self.places)

    def get(self, name: str) -> OpenedRun:
        """Return a run; the first one without a name.

        Raises:
            ConfigError: there is no run of that name, or it has no finished chunk.
            DamagedRunError: it is damaged.
            StoreError: its store does not answer.
        """
        name = name or self.names[0]
        if name not in self.places:
            raise ConfigError.one("run", f"there is no run '{name[:80]}'", nearest(name, self.names))
        with self._opening:
            if name not in self._opened:
                self._opened[name] = self._open(self.places[name])
            return self._opened[name]

    def reload(self, name: str) -> None:
        """Open a run again; if that fails, the run stays as it was."""
        name = self.get(name).index.name
        with self._opening:
            before, self._opened[name] = self._opened[name], self._open(self.places[name])
        before.close()

    def close(self) -> None:
        """Close all runs."""
        for opened in self._opened.values():
            opened.close()
        self.engine.close()

    def _open(self, place: Place) -> OpenedRun:
        run = open_run(place.url)
        try:
            index = RunIndex.build(self._count, place.name, run, self.engine)
        except BaseException:
            run.close()
            raise
        self._count += 1
        return OpenedRun(index)


def find_runs(paths: Sequence[str]) -> list[Place]:
    """Find the runs at paths or URLs: each is a run, or a folder of runs.

    A run is called like its folder, with as many folders above as tell the runs apart.

    Raises:
        ConfigError: there is no run at one of them.
    """
    urls = list(dict.fromkeys(url for path in paths for url in _runs_at(path)))
    for parts in range(1, 20):
        names = [_last(url, parts) for url in urls]
        if len(set(names)) == len(urls):
            return [Place(name, url) for name, url in zip(names, urls, strict=True)]
    return [Place(url, url) for url in urls]


def _runs_at(path: str) -> Iterator[str]:
    store = open_store(path)
    if MANIFEST in store.names() or part_names(store):
        yield store.url
        return
    inside = [open_store(f"{store.url}/{name}") for name in store.names() if not name.startswith(("_", "."))]
    runs = [one for one in inside if MANIFEST in one.names()]
    if not runs:
        raise ConfigError.one("RUN", f"'{store.url}' is not a run folder, and holds none", "name a run folder")
    yield from (one.url for one in runs)


def _last(url: str, parts: int) -> str:
    """Return the last parts of a path or URL, as a name."""
    return "/".join(url.rstrip("/").split("/")[-parts:]).encode("utf-8", "replace").decode() or "run"
