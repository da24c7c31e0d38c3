"""Runs that lack what most have: labels, confidences, explained images; and several values of metadata."""

from pathlib import Path

import pyarrow as pa
import pytest
from handmade import RunMaker
from viewing import addresses, keys, text, viewing

from pipeline.explain.rows import Row
from pipeline.storage.run_folder import PartName
from schemas.explanation import explanation_schema
from schemas.manifest import RunIdentity


class Unlabelled(RunMaker):
    """A run without labels."""

    def rows(self, part: PartName) -> list[Row]:
        return [row | {"label": None} for row in super().rows(part)]


class Regression(RunMaker):
    """A run of a model whose outputs are numbers."""

    @property
    def identity(self) -> RunIdentity:
        identity = super().identity
        return identity.model_copy(update={"model": identity.model | {"outputs": "raw"}})

    def rows(self, part: PartName) -> list[Row]:
        none = dict.fromkeys(("predicted", "confidence", "target_confidence"))
        return [row | none for row in super().rows(part)]


class AllFailed(RunMaker):
    """A run of which no image was explained."""

    def rows(self, part: PartName) -> list[Row]:
        failed = [row for row in super().rows(PartName(1, 0)) if row.get("error_code") == "truncated"]
        return [row | {"shard": self.shards[part.shard], "chunk": part.chunk} for row in failed]


class FromHospitals(RunMaker):
    """A run with metadata."""

    @property
    def identity(self) -> RunIdentity:
        identity = super().identity
        return identity.model_copy(update={"data": identity.data | {"metadata": ["hospital", "device"]}})

    @property
    def schema(self) -> pa.Schema:
        fields = [pa.field(name, pa.float32()) for name in sorted(self.metrics)]
        return explanation_schema(fields, has_metadata=True)

    def rows(self, part: PartName) -> list[Row]:
        return [row | {"metadata": [("hospital", f"H{part.shard}")]} for row in super().rows(part)]


PAGES = ("/", "/takeaway", "/keys.csv", "/?sort=confidence&order=desc", "/?target=all")


@pytest.mark.parametrize("kind", [Unlabelled, Regression, AllFailed, FromHospitals])
def test_every_page_and_picture_of_an_odd_run_is_answered(tmp_path: Path, kind: type[RunMaker]) -> None:
    with viewing(kind(tmp_path / "run").complete().folder) as visitor:
        grid = visitor.get("/").text
        images = [link for link in addresses(grid, "href") if link.startswith("/image")]
        links = [link for link in addresses(grid, "href") if link.startswith("/")]
        for link in (*PAGES, *images, *links):
            assert visitor.get(link).status_code == 200, link
        for source in addresses(visitor.get(images[0]).text):
            assert visitor.get(source).status_code in (200, 404), source


def test_without_labels_nothing_is_right_or_wrong(tmp_path: Path) -> None:
    with viewing(Unlabelled(tmp_path / "run").complete().folder) as visitor:
        assert "% right" not in text(visitor.get("/").text)
        assert "No image of this selection has a label." in text(visitor.get("/classes").text)
        assert keys(visitor.get("/?right=wrong").text) == []


def test_numbers_have_no_classes(tmp_path: Path) -> None:
    with viewing(Regression(tmp_path / "run").complete().folder) as visitor:
        grid = visitor.get("/").text
        assert "output 0: -2.5" in text(grid)
        assert 'name="label"' not in grid
        assert 'data-brush="target_logit"' in grid
        assert visitor.get("/classes").status_code == 400
        assert len(keys(visitor.get("/?max.target_logit=-2.4").text)) == 4


def test_a_slice_of_metadata_is_a_filter(tmp_path: Path) -> None:
    with viewing(FromHospitals(tmp_path / "run").complete().folder) as visitor:
        assert keys(visitor.get("/?meta.hospital=H1").text) == ["b.tar/1-0-0", "b.tar/1-0-1"]
        assert "did you mean 'hospital'" in text(visitor.get("/?meta.hospitl=H1").text)
        assert keys(visitor.get("/?where=metadata['hospital']%3D'H0'+AND+label=1").text) == [
            "a.tar/0-0-0",
            "a.tar/0-1-0",
        ]


def test_a_folder_without_a_run_is_a_usage_error(tmp_path: Path) -> None:
    from pipeline.errors import ConfigError
    from pipeline.viewer.library import find_runs

    with pytest.raises(ConfigError, match="is not a run folder, and holds none"):
        find_runs([str(tmp_path)])


def test_a_merged_copy_shows_the_same(tmp_path: Path) -> None:
    from merging import ManyImages

    from pipeline.storage.compaction import compact

    maker = ManyImages(tmp_path / "run").complete()
    with viewing(maker.folder) as visitor:
        before = [visitor.get(link).content for link in ("/keys.csv?sort=image_key", "/tiles?sort=image_key")]
        tiles = addresses(before[1].decode())
        pictures = [visitor.get(source).content for source in tiles[:3]]
    compact(maker.store)
    with viewing(maker.folder) as visitor:
        assert [visitor.get(link).content for link in ("/keys.csv?sort=image_key", "/tiles?sort=image_key")] == before
        assert [visitor.get(source).content for source in tiles[:3]] == pictures
