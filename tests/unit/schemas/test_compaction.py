"""The record of a compaction: reads back as written, and changed records are refused."""

import json

import pytest

from schemas.compaction import CompactionRecord, MergedFile, OtherVersionError, PartsDigest, ranges

RECORD = CompactionRecord(
    run_id="0123",
    files=(
        MergedFile(name="a.parquet", sha256="00", size=10, rows=3, first_key="", last_key="b"),
        MergedFile(name="é", sha256="", size=1, rows=4, first_key="c", last_key="😀"),
    ),
    parts=((0, 0, 2), (1, 5, 5)),
    parts_sha256="ff",
)


def test_a_record_reads_back_as_it_was_written() -> None:
    assert CompactionRecord.from_json(RECORD.to_json()) == RECORD
    assert (RECORD.rows, RECORD.parts_count) == (7, 4)
    assert list(RECORD.chunks()) == [(0, 0), (0, 1), (0, 2), (1, 5)]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], ()),
        ([(0, 0)], ((0, 0, 0),)),
        ([(0, 0), (0, 1), (1, 0), (1, 1)], ((0, 0, 1), (1, 0, 1))),
        ([(0, 0), (0, 2), (0, 3), (2, 4)], ((0, 0, 0), (0, 2, 3), (2, 4, 4))),
    ],
)
def test_parts_are_written_as_ranges(chunks: list[tuple[int, int]], expected: tuple[tuple[int, int, int], ...]) -> None:
    assert ranges(chunks) == expected
    assert list(RECORD.model_copy(update={"parts": expected}).chunks()) == chunks


@pytest.mark.parametrize("change", [{"parts": [[0, 0, 1]]}, {"run_id": "0124"}, {"files": []}, {"sha256": "0"}])
def test_a_changed_record_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="changed after it was written"):
        CompactionRecord.from_json(json.dumps(json.loads(RECORD.to_json()) | change).encode())


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_another_version_has_its_own_error(version: object) -> None:
    text = json.dumps(json.loads(RECORD.to_json()) | {"version": version}).encode()
    with pytest.raises(OtherVersionError):
        CompactionRecord.from_json(text)


@pytest.mark.parametrize("text", [b"", b"3", b"[]", b"\xff", b"null"])
def test_text_that_is_not_a_record_is_refused(text: bytes) -> None:
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError, ValueError)) as caught:
        CompactionRecord.from_json(text)
    assert not isinstance(caught.value, OtherVersionError)


def test_the_digest_of_parts_depends_on_names_digests_and_order() -> None:
    def digest(*parts: tuple[str, str]) -> str:
        made = PartsDigest()
        for part in parts:
            made.add(*part)
        return made.hexdigest()

    one, two = ("a", "1"), ("b", "2")
    assert digest(one, two) == digest(one, two)
    assert len({digest(), digest(one), digest(one, two), digest(two, one), digest(("a", "2"), ("b", "1"))}) == 5
