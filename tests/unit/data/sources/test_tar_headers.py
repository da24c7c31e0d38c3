"""False headers in a tar: no bytes make the reader raise, hang, or use too much memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import BLOCK, END, ReadBytes, damage_codes, failures, header, keys, pax_header, plain, record, samples, tar_of

from pipeline.data.sources import Sample


@pytest.mark.timeout(20)
@pytest.mark.parametrize("size", [-512, -513, -1024, -1536, -(2**40)])
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"S", b"Z"], ids=lambda kind: kind.decode())
def test_a_negative_size_loses_only_its_member(read_tar_bytes: ReadBytes, size: int, kind: bytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + header("n.jpg", size, kind) + plain("b.jpg", b"2") + END)
    assert (keys(items), damage_codes(items)) == (["a", "b"], ["damaged"])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("size", [-1, -511])
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"S", b"Z"], ids=lambda kind: kind.decode())
def test_a_slightly_negative_size_loses_nothing_silently(read_tar_bytes: ReadBytes, size: int, kind: bytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + header("n.jpg", size, kind) + plain("b.jpg", b"2") + END)
    assert keys(items)[0] == "a"
    assert keys(items)[1:] == ["b"] or failures(items)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("size", [b"-512", b"-99", b"-1"])
def test_a_negative_size_in_a_pax_record_is_reported(read_tar_bytes: ReadBytes, size: bytes) -> None:
    data = plain("a.jpg", b"1") + pax_header(record(b"size", size)) + header("n.jpg") + plain("b.jpg", b"2") + END
    items = read_tar_bytes(data)
    assert keys(items)[0] == "a"
    assert keys(items)[-1] == "b"
    assert "damaged" in damage_codes(items)


@pytest.mark.parametrize("size", [2**17, 2**33, 2**40, 2**62, 2**80])
@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"], ids=lambda kind: kind.decode())
def test_a_header_that_needs_too_much_memory_is_refused(read_tar_bytes: ReadBytes, size: int, kind: bytes) -> None:
    data = plain("a.jpg", b"1") + header("big", size, kind) + plain("b.jpg", b"2") + END
    items = read_tar_bytes(data)
    assert (keys(items), damage_codes(items)) == (["a", "b"], ["damaged"])


@pytest.mark.timeout(60)
def test_a_long_chain_of_pax_headers_is_bounded(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + pax_header(b"") * 500 + plain("b.jpg", b"2") + END)
    assert keys(items) == ["a", "b"]


@pytest.mark.timeout(60)
def test_a_pax_record_of_a_million_digits_is_bounded(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + pax_header(b"1" * (1 << 20)) + plain("b.jpg", b"2") + END)
    assert (keys(items), damage_codes(items)) == (["a", "b"], ["damaged"])


@pytest.mark.parametrize(
    "payload",
    [
        b"0 path=x\n",
        b"zz",
        b"99999 path=x.jpg\n",
        b"30 hdrcharset=\xff\xfe\n",
        b"24 GNU.sparse.map=a,b,c\n",
        b"\0" * 512,
    ],
)
def test_a_damaged_pax_record_does_not_lose_the_neighbours(read_tar_bytes: ReadBytes, payload: bytes) -> None:
    data = plain("a.jpg", b"1") + pax_header(payload) + plain("m.jpg", b"2") + plain("b.jpg", b"3") + END
    found = keys(read_tar_bytes(data))
    assert (found[0], found[-1]) == ("a", "b")


def test_a_pax_header_without_its_member_is_damage(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + pax_header(record(b"path", b"b.jpg")) + END)
    assert (keys(items), damage_codes(items)) == (["a"], ["damaged"])


def test_a_global_pax_header_is_not_damage(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(tar_of([("a.jpg", b"1"), ("b.jpg", b"2")], "pax", pax_headers={"comment": "by git archive"}))
    assert (keys(items), len(items)) == (["a", "b"], 2)


KINDS = st.sampled_from([b"0", b"\0", b"1", b"2", b"5", b"7", b"S", b"L", b"K", b"x", b"g", b"X", b"Z"])
SIZES = st.sampled_from([0, 1, 512, 513, 5000, -1, -512, 2**33, 2**62, 2**80])
SPARSE = [(b"GNU.sparse." + key, value) for key, value in ((b"map", b"1,2"), (b"size", b"70000"), (b"realsize", b"-7"))]
RECORDS = st.sampled_from(
    [b"", b"1\n0\n5\n", record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")]
    + [record(b"size", size) for size in (b"512", b"-512", b"9" * 20, b"9" * 400)]
    + [record(b"path", path) for path in (b"/", b"\xff.jpg", b"")]
    + [record(b"hdrcharset", b"\xff"), record(b"hdrcharset", b"BINARY") + record(b"path", b"\xff.jpg")]
    + [record(key, value) for key, value in SPARSE]
)
HOSTILE = st.lists(st.tuples(KINDS, SIZES, RECORDS, st.booleans()), min_size=1, max_size=8)


@pytest.mark.timeout(120)
@settings(derandomize=True, max_examples=400, deadline=None)
@given(blocks=HOSTILE)
def test_hostile_headers_never_raise_and_never_hang(
    read_tar_bytes: ReadBytes, blocks: list[tuple[bytes, int, bytes, bool]]
) -> None:
    data = plain("first.jpg", b"1")
    for kind, size, payload, honest in blocks:
        head = header("h.jpg", len(payload) if honest else size, kind, at482=b"\1", at483=b"%011o\0" % 99)
        data += head + payload.ljust(BLOCK, b"\0")
    items = read_tar_bytes(data + plain("last.jpg", b"2") + END)
    assert samples(items)[0] == Sample("first", "s.tar", b"1", None, None)
    assert len(items) <= 3 * len(data) // BLOCK
    assert all(item.key.encode() for item in items)
