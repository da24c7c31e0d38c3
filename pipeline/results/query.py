"""Queries a run with SQL (DuckDB, read-only) and returns maps as arrays.

Views: `explanations` (one row per image, target and method), `images` (one row per image), `failures` (one row
per image, method or shard that failed), `classes` (index and name of each class), `leaderboard` (per method: images,
share of degenerate maps, mean of each metric), `sanity` (results of `camatlas sanity`). `explanations`, `images` and
`failures` also have the columns `label_name`, `predicted_name` and (not `images`) `target_name`. DuckDB cannot open
files or the network and its configuration is locked; it reads the run's files through pyarrow only.

The column `correct` of `images` is NULL where the rows do not tell whether a prediction is right: without labels, for
raw outputs, and for independent labels that are not all stored.

`map_values(map, map_dtype, map_min, map_max)` returns the values of a map as a list, for computing with maps in SQL.
For example, the mean map of a class:

    run = pipeline.open_run("my_run")
    run.sql('''
        SELECT cell, avg(value) AS mean FROM (
          SELECT unnest(range(map_height * map_width)) AS cell,
            unnest(map_values(map, map_dtype, map_min, map_max)) AS value
          FROM explanations WHERE method = 'gradcam' AND label = 1)
        GROUP BY cell ORDER BY cell
    ''')
    run.maps("method = 'gradcam' AND label = 1").mean(0)  # the same values as an array (u, v)
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset

from pipeline.data.sources.shards import Extent
from pipeline.errors import ConfigError, nearest
from pipeline.results.class_names import class_table, name_columns, name_statements
from pipeline.results.map_tables import MAP_COLUMNS, decode_row, decode_table
from pipeline.results.output_kind import OutputKind
from pipeline.results.places import ImagePlaces, Place
from pipeline.results.sql_engine import RunFiles, Tables, damage_named
from pipeline.results.views import VIEWS, view_statements
from pipeline.storage.base import Store
from pipeline.storage.checksums import open_checksummed
from pipeline.storage.merged import checked_files_of, is_lost, rows_of
from pipeline.storage.parts import read_part
from pipeline.storage.run_folder import PartName, read_manifest
from pipeline.storage.store import open_store
from schemas.explanation import is_curve, with_source
from schemas.manifest import RunManifest
from schemas.sanity import SANITY_FOLDER, SANITY_SCHEMA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MAP_COLUMNS", "VIEWS", "Run", "decode_row", "decode_table", "open_run", "sanity_table"]


class Run(Tables):
    """An open run: a snapshot of the parts that existed when it was opened; close it, or use a `with` block.

    Args:
        store: the run folder.
        scratch: an empty folder for large intermediate results; see `Tables`.
    """

    def __init__(self, store: Store, scratch: str | None = None) -> None:
        self.store = store
        self.manifest: RunManifest = read_manifest(store)
        self.files = checked_files_of(store, self.manifest.run_id, self.manifest.earlier_ids)
        self.parts = self.files.parts
        if not self.parts:
            raise ConfigError.one("RUN", f"'{store.url}' holds no finished chunk yet", "run `camatlas explain` first")
        views = view_statements(
            scalar_metrics=has_scalar_metrics(self.manifest),
            correct=OutputKind.of(self.manifest).correct_sql(),
            names=name_columns([self.manifest], self.manifest.identity.metrics),
            has_metadata=self.manifest.has_metadata,
        )
        super().__init__(
            {
                "parts": RunFiles(store, self.files),
                "classes": class_table(self.manifest),
                "sanity": sanity_table(store),
            },
            (*name_statements(["classes"]), *views),
            VIEWS,
            scratch,
        )
        self._places = ImagePlaces(self._opened["parts"])

    def __repr__(self) -> str:
        from pipeline.results.showing import heading

        return f"<{heading(self)}>"

    def _repr_html_(self) -> str:
        from pipeline.maps.gallery import html
        from pipeline.results.showing import page

        return html(page(self))

    def plot(self, images: int = 4, methods: Sequence[str] | None = None) -> "Figure":
        """Draw the first images with their maps as a figure of matplotlib (`pip install 'camatlas[plot]'`).

        Args:
            images: the number of images, or of pairs of image and target.
            methods: names of the methods; None draws all.

        Raises:
            ConfigError: matplotlib is not installed, or the run has no such method, or nothing was explained.
        """
        from pipeline.maps.gallery import figure
        from pipeline.results.showing import first_images
        from pipeline.settings.libraries import import_matplotlib

        import_matplotlib()
        known = list(self.manifest.identity.methods)
        for name in methods or ():
            if name not in known:
                raise ConfigError.one("methods", f"the run has no method '{name}'", nearest(name, known))
        shown = first_images(self, images, known if methods is None else methods)
        if not shown:
            raise ConfigError.one("images", "no image was explained", "see the view failures")
        return figure(shown)

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the parameters of each metric, with its name in the registry, by its name in the run."""
        return self.manifest.identity.metrics

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of the rows."""
        return self._opened["parts"].schema

    def dataset(self) -> pyarrow.dataset.Dataset:
        """Return the rows as a dataset of pyarrow, whose reads verify checksums, for readers that do not use SQL."""
        return self._opened["parts"]

    def tables(self) -> Iterator[tuple[PartName, pa.Table]]:
        """Yield each part and its rows, including failures, in the order of the parts.

        Raises:
            DamagedRunError: a part cannot be read.
        """
        for part in self.parts:
            with damage_named(self.store, part.file):
                table, _ = read_part(self.store.read(part.file))
            yield part, with_source(table)

    def extents(self, places: Collection[Place]) -> dict[Place, Extent]:
        """Return where images lie, by (shard, image key); those of which no row says it are left out.

        Threads may call it at once, also while a query runs. A file that cannot be read says nothing.
        """
        try:
            return self._places.find(places)
        except (pa.ArrowException, OSError):
            if not is_lost(self.store, self.files):  # a compaction replaced the merged copy
                return {}
        try:
            files = self.files.without_merged()
            self._places = ImagePlaces(rows_of(self.store.dataset(files.names), files))
            return self._places.find(places)
        except (pa.ArrowException, OSError):
            return {}

    def refuse_damage(self) -> None:
        """Read every part, for exporters that pass parts on unread; raise DamagedRunError if one is damaged."""
        RunFiles(self.store, self.files.without_merged()).refuse_damage()


def open_run(path: str | Path, scratch: str | None = None) -> Run:
    """Open a run folder for queries; with a scratch folder, large intermediate results go there.

    Raises:
        ConfigError: there is no run, or it has no finished chunk.
        DamagedRunError: its manifest or a part is damaged, or a part is missing.
    """
    return Run(open_store(str(path)), scratch)


def has_scalar_metrics(manifest: RunManifest) -> bool:
    """Return whether any metric of a run is a number per map, not a curve."""
    return not all(map(is_curve, manifest.identity.metrics))


def sanity_table(store: Store) -> pa.Table:
    """Read the results of all sanity checks of a run; raise DamagedRunError when a file cannot be read."""
    names = [name for name in store.names(SANITY_FOLDER) if name.endswith(".parquet") and not name.startswith(".")]
    found = [SANITY_SCHEMA.empty_table()]
    for name in names:
        with damage_named(store, f"{SANITY_FOLDER}/{name}"):
            found.append(open_checksummed(store.read(f"{SANITY_FOLDER}/{name}")).read().cast(SANITY_SCHEMA))
    return pa.concat_tables(found)
