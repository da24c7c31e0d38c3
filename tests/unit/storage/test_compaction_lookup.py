"""Compaction: looking up an image reads little of the copy, and no condition on keys loses a row."""

from pathlib import Path

import pytest
from handmade import PARTS
from merging import SMALL, ManyImages, files, row_groups
from queries import rows

from pipeline.results.query import open_run
from pipeline.storage.compaction import Limits, compact
from pipeline.storage.merged import merged_path


def test_a_lookup_reads_one_row_group_instead_of_every_part(many: ManyImages) -> None:
    keys = [many.image(part, number) for part in PARTS for number in range(many.images)]
    before = [row_groups(many.store, files(many), key) for key in keys]
    compact(many.store, SMALL)
    after = [row_groups(many.store, files(many), key) for key in keys]
    assert sum(before) > 2 * len(keys)
    assert max(after) <= 2
    assert sum(after) < 1.5 * len(keys)


@pytest.mark.parametrize("number", range(5))
def test_a_lookup_opens_the_one_file_that_can_hold_the_key(many: ManyImages, number: int) -> None:
    """All other files are damaged after opening the run, which reads the footers; the first file gives the schema."""
    record = compact(many.store, SMALL).record
    key = many.image(PARTS[1], number)
    others = [file for file in record.files[1:] if not file.first_key <= key <= file.last_key]
    assert len(others) >= len(record.files) - 3
    with open_run(many.folder) as run:
        for file in others:
            (many.folder / merged_path(file.name)).write_bytes(b"")
        assert rows(run, "SELECT count(*) FROM explanations WHERE image_key = ?", [key]) == [(2,)]


@pytest.mark.parametrize(
    "condition",
    ["image_key = ?", "image_key <> ?", "image_key < ?", "image_key >= ?", "image_key > ? OR method = 'gradcam'",
     "image_key IN ('', ?)", "starts_with(image_key, ?)", "image_key IS DISTINCT FROM ?", "NOT image_key > ?"],
)  # fmt: skip
def test_no_condition_on_keys_loses_a_row(many: ManyImages, tmp_path: Path, condition: str) -> None:
    plain = ManyImages(tmp_path / "plain").complete()
    files = compact(many.store, SMALL).record.files
    keys = [key for file in files[::2] for key in (file.first_key, file.last_key)]
    query = f"SELECT image_key, method FROM explanations WHERE {condition} ORDER BY ALL"
    with open_run(many.folder) as run, open_run(plain.folder) as expected:
        for key in [*keys, many.image(PARTS[0], 3), "", "zzz", "7"]:
            assert rows(run, query, [key]) == rows(expected, query, [key])


def bytes_read() -> int:
    """Return the bytes that this process has read so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def test_a_lookup_in_sql_reads_a_small_part_of_the_copy(tmp_path: Path) -> None:
    many = ManyImages(tmp_path / "run", images=2000).complete()
    record = compact(many.store, Limits(group_rows=200)).record
    key = many.image(PARTS[0], 7)
    with open_run(many.folder) as run:
        query = "SELECT * FROM explanations WHERE image_key = ?"
        run.arrow(query, [key])  # footers are read once
        before = bytes_read()
        assert run.arrow(query, [key]).num_rows == 2
        assert bytes_read() - before < sum(file.size for file in record.files) / 20
