"""Class names in SQL: of runs, atlases and merged copies; of raw outputs, without names, and of hostile names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from handmade import RunMaker
from queries import refusal, rows

from pipeline.errors import ConfigError
from pipeline.metrics import build_metrics
from pipeline.results.atlas import open_atlas
from pipeline.results.query import Run, open_run
from pipeline.storage.compaction import compact
from schemas.manifest import RunIdentity, RunManifest

HOSTILE = ("<script>alert(1)</script>", "=1+1'; DROP VIEW images; --", 'a"b\n\x1b[2J')


@dataclass(frozen=True)
class Named(RunMaker):
    """A run with given class names, a given kind of outputs, and a model's name."""

    classes: tuple[str, ...] = ("cat", "dog", "owl")
    outputs: str = "softmax"
    model: str = "toy"

    @property
    def identity(self) -> RunIdentity:
        model = {"name": self.model, "weights_sha256": "00", "layer": "features", "outputs": self.outputs}
        return super().identity.model_copy(update={"model": model})

    @property
    def manifest(self) -> RunManifest:
        return super().manifest.model_copy(update={"classes": self.classes})


def named(folder: Path, **fields: Any) -> Run:
    return open_run(Named(folder, **fields).complete().folder)


def test_rows_are_counted_by_the_names_of_their_labels(opened: Run) -> None:
    assert rows(opened, "SELECT label_name, count(*) FROM explanations GROUP BY 1 ORDER BY 1") == [
        ("dog", 5),
        (None, 2),
    ]
    expected = [("dog", "cat", False), ("dog", "cat", False), ("dog", "cat", False), (None, "dog", None)]
    found = rows(opened, "SELECT label_name, predicted_name, correct FROM images WHERE maps > 0 ORDER BY ALL")
    assert found == expected
    assert rows(opened, "SELECT DISTINCT predicted_name, target_name FROM explanations ORDER BY 1") == [
        ("cat", "cat"), ("dog", "dog"),
    ]  # fmt: skip
    assert rows(opened, "SELECT label_name, target_name FROM failures WHERE method IS NOT NULL") == [("dog", "cat")]
    assert rows(opened, "SELECT * FROM classes") == [(0, "cat"), (1, "dog"), (2, "owl")]


def test_names_are_not_averaged_and_rows_keep_their_columns(opened: Run, small_run: RunMaker) -> None:
    assert opened.schema.names == small_run.schema.names
    assert "label_name" not in opened.arrow("SELECT * FROM leaderboard").column_names


def test_a_merged_copy_has_the_same_names(small_run: RunMaker, opened: Run) -> None:
    statement = "SELECT * FROM images ORDER BY shard, image_key"
    before = opened.arrow(statement)
    compact(small_run.store)
    with open_run(small_run.folder) as merged:
        assert merged.files.merged
        assert merged.arrow(statement).equals(before)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text(tmp_path: Path, name: str) -> None:
    with named(tmp_path / "run", classes=("cat", name)) as run:
        assert rows(run, "SELECT DISTINCT label_name FROM explanations WHERE label IS NOT NULL") == [(name,)]
        assert rows(run, "SELECT count(*) FROM images WHERE label_name = ?", [name]) == [(3,)]


def test_a_name_that_is_no_unicode_is_escaped(tmp_path: Path) -> None:
    with named(tmp_path / "run", classes=("cat", "\ud800")) as run:
        assert rows(run, "SELECT name FROM classes WHERE class_index = 1") == [(r"\ud800",)]


@pytest.mark.parametrize("classes", [(), ("cat",)])
def test_a_class_without_a_name_is_its_index(tmp_path: Path, classes: tuple[str, ...]) -> None:
    with named(tmp_path / "run", classes=classes) as run:
        found = rows(run, "SELECT DISTINCT label_name, predicted_name FROM images WHERE label IS NOT NULL")
        assert found == [("1", classes[0] if classes else "0")]
        assert rows(run, "SELECT count(*) FROM classes") == [(len(classes),)]


def test_labels_of_raw_outputs_are_numbers_and_outputs_have_names(tmp_path: Path) -> None:
    with named(tmp_path / "run", classes=("age", "weight"), outputs="raw") as run:
        found = rows(run, "SELECT DISTINCT label_name, target_name FROM explanations ORDER BY ALL")
        assert found == [("1", "age"), (None, "weight")]


def test_the_runs_of_an_atlas_keep_their_own_names(tmp_path: Path) -> None:
    Named(tmp_path / "one", model="one").complete()
    Named(tmp_path / "two", model="two", classes=("Katze", "Hund")).complete()
    Named(tmp_path / "three", model="three", classes=()).complete()
    with open_atlas(tmp_path) as atlas:
        found = rows(atlas, "SELECT DISTINCT model, label_name FROM images WHERE label IS NOT NULL ORDER BY 1")
        assert found == [("one", "dog"), ("three", "1"), ("two", "Hund")]
        assert rows(atlas, "SELECT model, name FROM classes WHERE class_index = 0 ORDER BY 1") == [
            ("one", "cat"), ("two", "Katze"),
        ]  # fmt: skip
        assert atlas.arrow("SELECT * FROM classes").column_names[:3] == ["run", "model", "dataset"]


def test_a_query_without_names_reads_none(opened: Run) -> None:
    """Their columns cost nothing where they are not used."""
    plan = "EXPLAIN SELECT {} FROM explanations GROUP BY 1"
    assert "label" not in str(opened._connection.sql(plan.format("method, avg(average_drop)")).fetchall())
    assert "label" in str(opened._connection.sql(plan.format("label_name, avg(average_drop)")).fetchall())


def test_a_metric_of_an_older_run_keeps_its_name(tmp_path: Path) -> None:
    with open_run(RunMaker(tmp_path / "run", metrics=("Label_Name",)).complete().folder) as run:
        assert rows(run, "SELECT max(Label_Name), max(target_name) FROM explanations") == [(0.75, "dog")]
        assert "Label_Name" in run.arrow("SELECT * FROM leaderboard").column_names
    with pytest.raises(ConfigError, match="'Target_Name' is the name of another column"):
        build_metrics([{"increase": {"as": "Target_Name"}}])


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("SELECT method,\n\tbogus\nFROM explanations", "bogus"),
        ("SELECT 'é', 1\n\t\tFORM\tx FROM images", "x"),
        ("SELECT 1\n  FROM imgaes", "imgaes"),
    ],
)
def test_an_error_keeps_its_line_and_its_carets(opened: Run, query: str, word: str) -> None:
    lines = refusal(opened, query).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("LINE 2:"))
    assert lines[place + 1].index("^") == lines[place].index(word)
    assert lines[-1].startswith("(views: explanations, ")
