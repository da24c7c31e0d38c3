"""Atlases: runs of several models, methods and metrics are queried as one; invalid folders are refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from handmade import PARTS, RunMaker
from queries import refusal, rows
from typer.testing import CliRunner

import pipeline
from jobs.query import query
from pipeline.errors import ConfigError, DamagedRunError
from pipeline.results.atlas import ATLAS_VIEWS, Atlas, dataset_digest, is_atlas, open_atlas
from pipeline.results.query import open_run
from pipeline.storage.compaction import compact
from pipeline.storage.run_folder import MANIFEST, PartName
from schemas.manifest import RunIdentity
from schemas.sanity import SANITY_FOLDER

app = typer.Typer()
app.command()(query)


@dataclass(frozen=True)
class Named(RunMaker):
    """A run with a given model name."""

    model: str = "toy"

    @property
    def identity(self) -> RunIdentity:
        """Return the identity of the run, with the model's name."""
        model = {"name": self.model, "weights_sha256": f"{self.model}-digest", "layer": "features"}
        return super().identity.model_copy(update={"model": model})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An atlas folder: two models on the same images with different metrics, and a later run with another method."""
    atlas = tmp_path / "atlas"
    Named(atlas / "first", model="resnet").complete()
    Named(atlas / "second", model="vit", metrics=("average_drop", "insertion")).complete()
    Named(atlas / "later", model="resnet", methods=("iscam",), metrics=("average_drop",)).complete()
    return atlas


@pytest.fixture
def atlas(folder: Path) -> Atlas:
    """The atlas of the three runs, open for queries."""
    return open_atlas(folder)


def identity_of(atlas: Atlas, folder: str) -> str:
    ((run,),) = rows(atlas, "SELECT run FROM runs WHERE folder = ?", [folder])
    return str(run)


def test_rows_of_all_runs_name_their_run(folder: Path, atlas: Atlas) -> None:
    assert (
        rows(atlas, "SELECT folder, model, count(*) FROM explanations JOIN runs USING (run, model) GROUP BY ALL") != []
    )
    counted = "SELECT model, method, count(*) FROM explanations GROUP BY ALL ORDER BY ALL"
    assert rows(atlas, counted) == [
        ("resnet", "gradcam", 4), ("resnet", "iscam", 3), ("resnet", "scorecam", 3),
        ("vit", "gradcam", 4), ("vit", "scorecam", 3),
    ]  # fmt: skip
    with open_run(folder / "second") as run:
        alone = run.arrow("SELECT * FROM explanations ORDER BY ALL")
        chosen = ", ".join(f'"{name}"' for name in alone.column_names)
        together = atlas.arrow(f"SELECT {chosen} FROM explanations WHERE model = 'vit' ORDER BY ALL")
        assert together.equals(alone)


def test_every_view_begins_with_run_model_and_dataset(atlas: Atlas) -> None:
    for view in ATLAS_VIEWS:
        assert atlas.arrow(f"SELECT * FROM {view}").column_names[:3] == ["run", "model", "dataset"]
    assert "\nviews: " not in refusal(atlas, "SELEC 1")
    assert refusal(atlas, "SELEC 1").endswith(f"(views: {', '.join(ATLAS_VIEWS)})")


def test_the_view_runs_describes_each_run(atlas: Atlas) -> None:
    statement = "SELECT folder, model, weights_sha256, layer, methods, metrics, targets, maps FROM runs ORDER BY folder"
    assert rows(atlas, statement) == [
        ("first", "resnet", "resnet-digest", "features", ["gradcam", "scorecam"], ["average_drop", "pointing_game"],
         "predicted", "u8"),
        ("later", "resnet", "resnet-digest", "features", ["iscam"], ["average_drop"], "predicted", "u8"),
        ("second", "vit", "vit-digest", "features", ["gradcam", "scorecam"], ["average_drop", "insertion"],
         "predicted", "u8"),
    ]  # fmt: skip
    assert {run for (run,) in rows(atlas, "SELECT run FROM runs")} == set(atlas.manifests)


def test_a_metric_missing_from_a_run_is_null(atlas: Atlas) -> None:
    counts = "SELECT model, count(average_drop), count(pointing_game), count(insertion) FROM explanations GROUP BY ALL"
    assert rows(atlas, f"{counts} ORDER BY ALL") == [("resnet", 10, 7, 0), ("vit", 7, 0, 7)]
    board = rows(atlas, "SELECT model, method, images, pointing_game IS NULL, insertion IS NULL FROM leaderboard")
    assert sorted(board) == [
        ("resnet", "gradcam", 4, False, True), ("resnet", "iscam", 3, True, True),
        ("resnet", "scorecam", 3, False, True), ("vit", "gradcam", 4, True, False), ("vit", "scorecam", 3, True, False),
    ]  # fmt: skip


def test_two_models_are_joined_on_the_same_images(atlas: Atlas) -> None:
    joined = """
    SELECT shard, image_key, method, a.average_drop - b.average_drop
    FROM explanations a JOIN explanations b USING (dataset, shard, image_key, method)
    WHERE a.model = 'resnet' AND b.model = 'vit' ORDER BY ALL
    """
    found = rows(atlas, joined)
    assert len(found) == 7
    assert {difference for *_, difference in found} == {0.0}


def test_methods_of_two_runs_are_found_for_one_image(atlas: Atlas) -> None:
    statement = "SELECT method, run FROM explanations WHERE model = 'resnet' AND image_key = ? ORDER BY method"
    found = rows(atlas, statement, ["0-0-1"])
    assert [method for method, _ in found] == ["gradcam", "iscam", "scorecam"]
    assert found[0][1] == found[2][1] == identity_of(atlas, "first")
    assert found[1][1] == identity_of(atlas, "later")
    assert atlas.maps("image_key = '0-0-1' AND model = 'resnet'").shape == (3, 3, 4)


def test_images_and_failures_are_counted_per_run(atlas: Atlas) -> None:
    assert rows(atlas, "SELECT count(*), count(DISTINCT run), count(DISTINCT (shard, image_key)) FROM images") == [
        (15, 3, 5)
    ]
    assert rows(atlas, "SELECT model, count(*) FROM failures GROUP BY ALL ORDER BY ALL") == [("resnet", 6), ("vit", 3)]


def test_datasets_are_equal_if_the_shard_listings_are(tmp_path: Path) -> None:
    one, same = Named(tmp_path / "a", model="a"), Named(tmp_path / "b", model="b", metrics=(), methods=("cam",))
    others = [Named(tmp_path / "c", shards=("a.tar", "c.tar")), Named(tmp_path / "d", take=2)]
    assert dataset_digest(one.manifest) == dataset_digest(same.manifest)
    assert len({dataset_digest(run.manifest) for run in (one, *others)}) == 3


def test_a_query_on_one_run_does_not_read_the_others(folder: Path) -> None:
    with open_atlas(folder) as atlas:
        chosen = identity_of(atlas, "first")
        for part in PARTS:
            (folder / "second" / part.file).write_bytes(b"")
        assert rows(atlas, "SELECT count(*) FROM explanations WHERE run = ?", [chosen]) == [(7,)]


def test_merged_copies_and_newer_parts_are_read(tmp_path: Path) -> None:
    for model in ("resnet", "vit"):
        maker = Named(tmp_path / "atlas" / model, model=model).owned().publish(*PARTS[:2])
        compact(maker.store)
        maker.publish(PARTS[2])
    with open_atlas(tmp_path / "atlas") as atlas:
        assert rows(atlas, "SELECT model, count(*) FROM parts GROUP BY ALL ORDER BY ALL") == [
            ("resnet", 10),
            ("vit", 10),
        ]
        compact(maker.store)  # deletes the copy that is open
        assert rows(atlas, "SELECT count(*) FROM parts") == [(20,)]


def test_sanity_checks_are_included(folder: Path, atlas: Atlas) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas.sanity import SANITY_SCHEMA

    assert atlas.arrow("SELECT * FROM sanity").num_rows == 0
    (folder / "second" / SANITY_FOLDER).mkdir()
    table = pa.Table.from_pylist([{"test": "class_swap", "method": "gradcam"}], schema=SANITY_SCHEMA)
    pq.write_table(table, folder / "second" / SANITY_FOLDER / "0.parquet")
    with open_atlas(folder) as again:
        assert rows(again, "SELECT model, test, method FROM sanity") == [("vit", "class_swap", "gradcam")]


@pytest.mark.parametrize("metrics", [(), ("average_drop",)])
def test_a_run_without_a_finished_chunk_is_listed_and_gives_no_rows(tmp_path: Path, metrics: Sequence[str]) -> None:
    Named(tmp_path / "done", model="done", metrics=metrics).complete()
    Named(tmp_path / "begun", model="begun").owned()
    with open_atlas(tmp_path) as atlas:
        assert rows(atlas, "SELECT folder FROM runs ORDER BY folder") == [("begun",), ("done",)]
        assert rows(atlas, "SELECT DISTINCT model FROM leaderboard") == [("done",)]


def test_an_atlas_of_runs_without_parts_has_empty_views(tmp_path: Path) -> None:
    Named(tmp_path / "begun").owned()
    with open_atlas(tmp_path) as atlas:
        assert [atlas.arrow(f"SELECT * FROM {view}").num_rows for view in ATLAS_VIEWS] == [0, 0, 0, 3, 0, 0, 1]


def test_files_and_hidden_or_underscored_folders_are_skipped(folder: Path) -> None:
    (folder / "README.md").write_text("mine", encoding="utf-8")
    for name in ("_notes", ".git"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("mine", encoding="utf-8")
    (folder / "empty").mkdir()
    with open_atlas(folder) as atlas:
        assert len(atlas.manifests) == 3


def test_a_folder_that_is_not_a_run_is_named(folder: Path) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"FOLDER: '.*/photos' is not a run folder: it has no run.json") as caught:
        open_atlas(folder)
    assert f"to query a run, name it: '{folder}/first', '{folder}/later', '{folder}/second'; " in str(caught.value)


def test_a_damaged_manifest_is_named(folder: Path) -> None:
    (folder / "second" / MANIFEST).write_bytes(b"{}")
    with pytest.raises(DamagedRunError, match=r"second/run\.json is damaged"):
        open_atlas(folder)


@pytest.mark.parametrize("part", [PARTS[0], PARTS[2]])
def test_a_damaged_part_is_named(folder: Path, part: PartName) -> None:
    (folder / "second" / part.file).write_bytes(b"PAR1")
    with pytest.raises(DamagedRunError, match=f"second/{part.file} cannot be read"), open_atlas(folder) as atlas:
        atlas.arrow("SELECT * FROM explanations")


def test_a_copied_run_is_refused_because_it_would_duplicate_rows(folder: Path) -> None:
    Named(folder / "second (copy)", model="vit", metrics=("average_drop", "insertion")).complete()
    with pytest.raises(ConfigError, match=r"'second' and 'second \(copy\)' are the same run"):
        open_atlas(folder)


@pytest.mark.parametrize("name", ["run", "model", "dataset", "Run"])
def test_a_metric_with_the_name_of_an_atlas_column_is_refused(folder: Path, name: str) -> None:
    made = Named(folder / "odd", model="odd", metrics=(name,)).complete()
    with pytest.raises(ConfigError, match=f"a metric of 'odd' is called '{name.lower()}'"):
        open_atlas(folder)
    with open_run(made.folder) as run:
        assert name in run.arrow("SELECT * FROM leaderboard").column_names


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="holds no run"):
            open_atlas(path)


@pytest.mark.parametrize("word", ["'", '"', "'; DROP VIEW images; --", "a b", "é", "%", "{x}", "select"])
def test_hostile_model_and_folder_names_are_treated_as_values(tmp_path: Path, word: str) -> None:
    Named(tmp_path / "atlas" / word, model=word).complete()
    with open_atlas(tmp_path / "atlas") as atlas:
        assert rows(atlas, "SELECT DISTINCT model FROM explanations") == [(word,)]
        assert rows(atlas, "SELECT folder FROM runs") == [(word,)]
        assert [atlas.arrow(f"SELECT * FROM {view}").num_rows for view in ATLAS_VIEWS] == [7, 5, 3, 3, 2, 0, 1]


@pytest.mark.parametrize(
    "statement", ["SELECT * FROM read_csv('{folder}/x.csv')", "COPY runs TO '{folder}/x.csv'", "DELETE FROM runs"]
)
def test_an_atlas_is_sandboxed_like_a_run(folder: Path, atlas: Atlas, statement: str) -> None:
    (folder / "x.csv").write_text("a\nsecret\n", encoding="utf-8")
    assert "secret" not in refusal(atlas, statement.format(folder=folder))
    assert (folder / "x.csv").read_text(encoding="utf-8") == "a\nsecret\n"


def test_the_query_command_accepts_an_atlas(folder: Path) -> None:
    assert is_atlas(folder)
    assert not is_atlas(folder / "first")
    ended = CliRunner().invoke(app, [str(folder), "SELECT model, method, images FROM leaderboard", "--csv"])
    assert ended.exit_code == 0
    assert sorted(ended.stdout.splitlines()) == [
        "model,method,images", "resnet,gradcam,4", "resnet,iscam,3", "resnet,scorecam,3", "vit,gradcam,4",
        "vit,scorecam,3",
    ]  # fmt: skip
    assert CliRunner().invoke(app, [str(folder)]).stdout.split()[:3] == ["run", "model", "dataset"]


def test_the_query_command_reports_an_invalid_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "cat.jpg").write_bytes(b"")
    foreign = CliRunner().invoke(app, [str(folder)])
    assert (foreign.exit_code, foreign.stdout) == (2, "")
    assert "photos" in foreign.stderr
    for path in (tmp_path, tmp_path / "none"):
        assert "is not a run folder" in CliRunner().invoke(app, [str(path)]).stderr


def test_the_package_exports_open_atlas(folder: Path) -> None:
    with pipeline.open_atlas(str(folder)) as atlas:
        assert isinstance(atlas, pipeline.Atlas)
