"""Members of a tar that are not plain files, or too large: they fail, and their neighbours are kept."""

import tarfile

import pytest
from tars import BLOCK, END, ReadBytes, damage_codes, failures, header, keys, pax_header, plain, record, samples, tar_of


def test_folders_of_the_tar_are_not_samples(read_tar_bytes: ReadBytes) -> None:
    data = header("x/", kind=b"5") + plain("x/a.jpg", b"1") + header("y/", 5000, b"5") + plain("y/b.jpg", b"2") + END
    items = read_tar_bytes(data)
    assert (keys(items), len(items)) == (["x/a", "y/b"], 2)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"],
    ids=["symlink", "hard link", "character device", "block device", "fifo", "unknown"],
)
def test_a_special_file_fails_and_its_neighbours_are_kept(read_tar_bytes: ReadBytes, kind: bytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + header("l.jpg", kind=kind) + plain("b.jpg", b"2") + END)
    assert (keys(items), failures(items), damage_codes(items)) == (["a", "b"], [("l", "member_type")], [])


def test_a_hard_link_with_a_size_does_not_hide_the_next_member(read_tar_bytes: ReadBytes) -> None:
    data = plain("a.jpg", b"1") + header("l.jpg", 5000, tarfile.LNKTYPE) + plain("b.jpg", b"2") + END
    items = read_tar_bytes(data)
    assert (keys(items), failures(items), damage_codes(items)) == (["a", "b"], [("l", "member_type")], [])


def sparse(name: str, stored: bytes, real: int, extended: bool = False) -> bytes:
    """Return an old GNU sparse file: `stored` bytes in the archive, `real` bytes when unpacked."""
    extent = b"%011o\0%011o\0" % (0, len(stored))
    fields = {"at386": extent, "at482": bytes([extended]), "at483": b"%011o\0" % real}
    return header(name, len(stored), tarfile.GNUTYPE_SPARSE, **fields) + stored + b"\0" * (-len(stored) % BLOCK)


@pytest.mark.parametrize("real", [100, 10**6, 8**11 - 1])
def test_a_sparse_file_fails_and_its_neighbours_are_kept(read_tar_bytes: ReadBytes, real: int) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + sparse("s.jpg", b"z" * 100, real) + plain("b.jpg", b"2") + END)
    assert (keys(items), failures(items), damage_codes(items)) == (["a", "b"], [("s", "member_type")], [])


def test_a_truncated_sparse_map_is_damage(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + sparse("s.jpg", b"", 100, extended=True))
    assert (keys(items), failures(items), damage_codes(items)) == (["a"], [], ["damaged"])


def test_a_sparse_file_in_pax_form_fails(read_tar_bytes: ReadBytes) -> None:
    fields = {b"major": b"1", b"minor": b"0", b"name": b"s.jpg", b"realsize": b"9999"}
    payload = b"".join(record(b"GNU.sparse." + key, value) for key, value in fields.items())
    data = (
        pax_header(payload) + plain("x/s.jpg", b"1\n0\n5\n".ljust(512, b"\0") + b"abcde") + plain("b.jpg", b"2") + END
    )
    items = read_tar_bytes(data)
    assert (keys(items), failures(items)) == (["b"], [("s", "member_type")])


def test_a_member_above_the_size_limit_fails_and_its_neighbours_are_kept(
    read_tar_bytes: ReadBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.sources.tar_members.MAX_MEMBER_BYTES", 1000)
    items = read_tar_bytes(tar_of([("a.jpg", b"1" * 1000), ("big.jpg", b"2" * 1001), ("b.jpg", b"3")]))
    assert (keys(items), failures(items)) == (["a", "b"], [("big", "too_large")])


def test_a_member_that_claims_terabytes_is_not_read(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + header("big.jpg", 2**62) + b"x" * BLOCK)
    assert (keys(items), failures(items), damage_codes(items)) == (["a"], [("big", "too_large")], ["truncated"])


def test_members_that_claim_the_bytes_of_others_are_not_read(read_tar_bytes: ReadBytes) -> None:
    """Use a PAX record that raises the size of a member without moving the next one."""
    greedy = pax_header(record(b"GNU.sparse.size", b"70000")) + plain("g.jpg", b"1")
    items = read_tar_bytes(plain("a.jpg", b"1") + greedy + plain("b.jpg", b"2" * 100_000) + END)
    assert all(len(sample.image) != 70_000 for sample in samples(items))
    assert {"a", "b"} <= set(keys(items))
