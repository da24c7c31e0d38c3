"""Queries can do no harm: invalid SQL, SQL that accesses files, and hostile names."""

import shutil
from pathlib import Path

import pytest
from handmade import PARTS, RunMaker
from queries import refusal, rows

from pipeline.errors import DamagedRunError
from pipeline.results.atlas import open_atlas
from pipeline.results.query import VIEWS, Run, open_run
from pipeline.results.verify import verify
from pipeline.storage.compaction import compact
from pipeline.storage.run_folder import MANIFEST, PartName

HOSTILE = [
    "'", '"', "''", "]", ";", "--", "a\0b", "\\", "\\0", "%", "{x}", "${x}", "/*", "\n", " ", "é", "\u202e", "a/../b",
    "'; DROP VIEW images; --", '"; DROP VIEW images; --', "x]; COPY explanations TO 'owned.csv'; --", "select",
]  # fmt: skip


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT bogus FROM images", "bogus"),
        ("SELECT * FROM imagse", "imagse"),
        ("SELECT image_key::INT FROM images", "Could not convert string"),
        ("SELECT error('boom')", "boom"),
        ("", "exactly one SELECT"),
        ("-- nothing", "exactly one SELECT"),
        ("SELECT 1; SELECT 2", "exactly one SELECT"),
        ("DROP VIEW images", "exactly one SELECT"),
        ("SELECT '\ud800'", "surrogate"),
        ("SELECT\0 1", "syntax error"),
    ],
)
def test_an_invalid_query_gives_its_problem_and_the_names_of_the_views(opened: Run, query: str, words: str) -> None:
    message = refusal(opened, query)
    assert message.startswith("SQL: ")
    assert words in message
    assert message.endswith(f"(views: {', '.join(VIEWS)})")
    assert "\n" not in message or "\nLINE 1: " in message
    assert opened.arrow("SELECT 1").num_rows == 1


@pytest.mark.parametrize(
    "query",
    [
        "COPY explanations TO '{folder}/owned.csv'",
        "COPY (SELECT 1) TO '{folder}/owned.parquet'",
        "EXPORT DATABASE '{folder}/owned'",
        "ATTACH '{folder}/owned.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "INSTALL '{folder}/owned.extension'",
        "SELECT * FROM read_csv('{folder}/secret.csv')",
        "SELECT * FROM read_text('{folder}/secret.csv')",
        "SELECT * FROM read_blob('{folder}/secret.csv')",
        "SELECT * FROM read_json('{folder}/secret.csv')",
        "SELECT * FROM read_parquet('{folder}/run/*.parquet')",
        "SELECT * FROM '{folder}/secret.csv'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM sniff_csv('{folder}/secret.csv')",
        "CREATE SECRET (TYPE s3)",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET threads = 1",
        "RESET lock_configuration",
        "PRAGMA enable_external_access = true",
        "SET python_enable_replacements = true",
        "SELECT * FROM folder",
        "SELECT * FROM query",
        "DELETE FROM parts",
        "UPDATE parts SET method = 'x'",
        "INSERT INTO parts SELECT * FROM parts",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/owned.csv'",
    ],
)
def test_a_query_cannot_access_files_or_change_the_configuration(opened: Run, small_run: RunMaker, query: str) -> None:
    folder = small_run.folder.parent
    (folder / "secret.csv").write_text("a\nsecret\n", encoding="utf-8")
    before = everything_in(folder)
    assert "secret\n" not in refusal(opened, query.format(folder=folder))
    assert everything_in(folder) == before
    assert opened.arrow("SELECT * FROM images").num_rows == 5


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_keys_shards_and_methods_are_treated_as_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = RunMaker(tmp_path / "run", shards=(word, f"{word}2"), methods=(word, f"{word}2"), prefix=word).complete()
    with open_run(made.folder) as run:
        assert [run.arrow(f"SELECT * FROM {view}").num_rows for view in VIEWS] == [7, 5, 3, 3, 2, 0]
        assert {row[0] for row in rows(run, "SELECT shard FROM images")} == {word, f"{word}2"}
        assert {row[0] for row in rows(run, "SELECT method FROM leaderboard")} == {word, f"{word}2"}
        query = "SELECT count(*) FROM explanations WHERE image_key = ? AND shard = ? AND method = ?"
        assert rows(run, query, [f"{word}0-0-0", word, word]) == [(1,)]
    assert verify(made.store).problems == []
    assert not (tmp_path / "owned.csv").exists()


@pytest.mark.parametrize("word", [word for word in HOSTILE if "\0" not in word])
def test_hostile_column_names_are_treated_as_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """camatlas has no such metrics, but a run folder from elsewhere may contain anything."""
    monkeypatch.chdir(tmp_path)
    made = RunMaker(tmp_path / "run", metrics=("average_drop", word)).complete()
    with open_run(made.folder) as run:
        assert [run.arrow(f"SELECT * FROM {view}").num_rows for view in VIEWS] == [7, 5, 3, 3, 2, 0]
        assert set(run.arrow("SELECT * FROM leaderboard").column_names[4:]) == {"average_drop", word}
        assert run.table([word])[word].to_pylist()[0] == 0.25
    assert not (tmp_path / "owned.csv").exists()


@pytest.mark.parametrize("merged", [False, True])
def test_a_missing_part_is_noticed_when_the_run_is_opened(small_run: RunMaker, *, merged: bool) -> None:
    if merged:
        compact(small_run.store)
    for part in PARTS[:2]:
        (small_run.folder / part.file).unlink()
    with pytest.raises(DamagedRunError, match=rf"{PARTS[0].file} is missing, and 1 more.* `camatlas explain` again"):
        open_run(small_run.folder)
    with pytest.raises(DamagedRunError, match="is missing"):
        open_atlas(small_run.folder.parent)
    small_run.publish(*PARTS[:2])
    with open_run(small_run.folder) as whole:
        assert rows(whole, "SELECT count(*) FROM parts") == [(10,)]


def test_a_part_whose_receipt_is_not_written_yet_is_read(small_run: RunMaker) -> None:
    for part in PARTS:
        (small_run.folder / part.receipt).unlink()
    with open_run(small_run.folder) as opened:
        assert rows(opened, "SELECT count(*) FROM parts") == [(10,)]


@pytest.mark.parametrize("name", [PARTS[1], PartName(0, 2)], ids=["in place of another", "beyond the end"])
def test_a_part_copied_under_another_name_is_refused(small_run: RunMaker, name: PartName) -> None:
    shutil.copy(small_run.folder / PARTS[0].file, small_run.folder / name.file)
    message = rf"{name.file} holds shard 0 chunk 0, which does not match its name"
    with pytest.raises(DamagedRunError, match=message):
        open_run(small_run.folder)
    with pytest.raises(DamagedRunError, match=message):
        open_atlas(small_run.folder.parent)


def test_a_part_of_another_run_is_refused(small_run: RunMaker, tmp_path: Path) -> None:
    other = RunMaker(tmp_path / "other" / "run", seed=1).complete()
    shutil.copy(other.folder / PARTS[1].file, small_run.folder)
    with pytest.raises(DamagedRunError, match=rf"{PARTS[1].file} belongs to run {other.manifest.run_id}, not"):
        open_run(small_run.folder)


def test_parts_without_a_manifest_are_a_damaged_run(small_run: RunMaker) -> None:
    (small_run.folder / MANIFEST).unlink()
    with pytest.raises(DamagedRunError, match=r"holds 3 parts, but its run\.json is missing.* same `camatlas explain`"):
        open_run(small_run.folder)
