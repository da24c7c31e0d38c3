"""Malicious and malformed weights files never run code and raise ConfigError, under any file name."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nets import ToyNet
from safetensors.torch import save

from pipeline.errors import ConfigError
from pipeline.model.weights import digest, load_weights

NAMES = ["w.pt", "w.pth", "w.bin", "w.safetensors"]


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def plain_pickle(canary: Path) -> bytes:
    return pickle.dumps({"linear.weight": Canary(canary)})


def old_protocol(canary: Path) -> bytes:
    return pickle.dumps(Canary(canary), protocol=0)


def torch_zip(canary: Path) -> bytes:
    """Return what `torch.save` writes for a state dict that contains more than tensors."""
    buffer = io.BytesIO()
    torch.save({**ToyNet(1).state_dict(), "extra": Canary(canary)}, buffer)
    return buffer.getvalue()


def torch_stream(canary: Path) -> bytes:
    """Return torch's format before zip files: consecutive pickles."""
    buffer = io.BytesIO()
    torch.save({"extra": Canary(canary)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def zip_after_bytes(canary: Path) -> bytes:
    """Return the first bytes of a JPEG and then a zip: zip files are read from their end."""
    return b"\xff\xd8\xff\xe0" + bytes(60) + torch_zip(canary)


def zip_after_weights(canary: Path) -> bytes:
    """Return complete safetensors and then a zip."""
    return save(ToyNet(1).state_dict()) + torch_zip(canary)


def zip_with_code(canary: Path) -> bytes:
    """Return a handmade zip with the member names that torch looks for."""
    return _zip({"archive/data.pkl": plain_pickle(canary), "archive/version": b"3\n", "archive/byteorder": b"little"})


def zip_with_script(canary: Path) -> bytes:
    """Return a zip with code that TorchScript would run."""
    code = f"def __setstate__(self, state):\n  open('{canary}', 'w')\n".encode()
    files = {"data.pkl": plain_pickle(canary), "constants.pkl": plain_pickle(canary), "code/__torch__.py": code}
    return _zip({f"archive/{name}": data for name, data in files.items()})


def tar_of_pickles(canary: Path) -> bytes:
    """Return torch's oldest format: a tar of pickles."""
    code = plain_pickle(canary)
    return _tar({"sys_info": code, "pickle": code, "storages": code, "tensors": code})


def tar_in_a_tar(canary: Path) -> bytes:
    return _tar({"pickle": tar_of_pickles(canary), "storages": torch_zip(canary)})


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PICKLES: list[Callable[[Path], bytes]] = [
    plain_pickle, old_protocol, torch_zip, torch_stream, zip_after_bytes, zip_after_weights, zip_with_code,
    zip_with_script, tar_of_pickles, tar_in_a_tar,
]  # fmt: skip


@pytest.mark.parametrize("allow_pt", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", PICKLES)
def test_code_is_never_run(make: Callable[[Path], bytes], name: str, allow_pt: bool, tmp_path: Path) -> None:
    model, canary, path = ToyNet(0), tmp_path / "canary", tmp_path / name
    path.write_bytes(make(canary))
    with pytest.raises(ConfigError) as refused:
        load_weights(model, str(path), allow_pt=allow_pt)
    assert not canary.exists()
    assert digest(model) == digest(ToyNet(0))
    if not name.endswith(".safetensors"):
        assert "safetensors.torch.save_file" in str(refused.value)


def test_the_canary_file_is_created_when_a_pickle_is_run(tmp_path: Path) -> None:
    pickle.loads(plain_pickle(tmp_path / "canary"))["linear.weight"].close()
    assert (tmp_path / "canary").exists()


DATA = ToyNet(1).state_dict()
HEADER = json.loads(save(DATA)[8 : 8 + struct.unpack("<Q", save(DATA)[:8])[0]])
BYTES = save(DATA)[8 + struct.unpack("<Q", save(DATA)[:8])[0] :]
FIRST, SECOND = sorted(HEADER, key=lambda name: HEADER[name]["data_offsets"])[:2]


def safetensors(header: bytes, data: bytes = BYTES, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def changed(name: str, **fields: object) -> bytes:
    return safetensors(json.dumps(HEADER | {name: HEADER[name] | fields}).encode())


def moved(by: int) -> bytes:
    """Return a file with a gap after the first tensor."""
    end = HEADER[FIRST]["data_offsets"][1]
    later = {
        name: entry
        | {"data_offsets": [at + by if entry["data_offsets"][0] >= end else at for at in entry["data_offsets"]]}
        for name, entry in HEADER.items()
    }
    return safetensors(json.dumps(later).encode(), BYTES[:end] + bytes(by) + BYTES[end:])


def doubled() -> bytes:
    """Return a file that has one name twice: readers may use the first entry or the last."""
    text = json.dumps(HEADER)
    other = json.dumps(HEADER[FIRST] | {"shape": [1]})
    return safetensors(f'{{"{FIRST}": {other}, {text[1:]}'.encode())


START, END = HEADER[FIRST]["data_offsets"]
SHAPE = HEADER[FIRST]["shape"]
MALFORMED: dict[str, Callable[[], bytes]] = {
    "a header larger than the file": lambda: safetensors(b"{}", b"", 1 << 40),
    "a header of 101 MB": lambda: safetensors(b"{" + b" " * 101_000_000 + b"}", b""),
    "a header longer than any number": lambda: safetensors(b"{}", b"", (1 << 64) - 1),
    "a truncated header": lambda: safetensors(json.dumps(HEADER).encode()[:-40], b""),
    "a header that is not an object": lambda: safetensors(b"[1, 2]", b""),
    "a header that is nested deeply": lambda: safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b""),
    "tensors that overlap": lambda: changed(SECOND, data_offsets=HEADER[FIRST]["data_offsets"]),
    "a gap between tensors": lambda: moved(64),
    "a negative offset": lambda: changed(FIRST, data_offsets=[-8, END - 8]),
    "an end before its start": lambda: changed(FIRST, data_offsets=[END, START]),
    "an end beyond the file": lambda: changed(FIRST, data_offsets=[START, 1 << 50]),
    "offsets that overflow": lambda: changed(FIRST, data_offsets=[START, (1 << 64) + END]),
    "another type than the bytes": lambda: changed(FIRST, dtype="F64"),
    "an unknown type": lambda: changed(FIRST, dtype="OBJECT"),
    "another shape than the bytes": lambda: changed(FIRST, shape=[2 * SHAPE[0], *SHAPE[1:]]),
    "a negative shape": lambda: changed(FIRST, shape=[-size for size in SHAPE]),
    "a shape that overflows": lambda: changed(FIRST, shape=[1 << 33, 1 << 33]),
    "one name twice": doubled,
    "bytes after the last tensor": lambda: safetensors(json.dumps(HEADER).encode(), BYTES + b"more"),
    "missing bytes": lambda: safetensors(json.dumps(HEADER).encode(), BYTES[:-4]),
}


@pytest.mark.parametrize("allow_pt", [False, True])
@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_safetensors_are_refused(what: str, allow_pt: bool, tmp_path: Path) -> None:
    model, path = ToyNet(0), tmp_path / "w.safetensors"
    path.write_bytes(MALFORMED[what]())
    with pytest.raises(ConfigError, match=r"model\.weights"):
        load_weights(model, str(path), allow_pt=allow_pt)
    assert digest(model) == digest(ToyNet(0))


def test_the_unchanged_file_is_loaded(tmp_path: Path) -> None:
    model, path = ToyNet(0), tmp_path / "w.safetensors"
    path.write_bytes(safetensors(json.dumps(HEADER).encode()))
    load_weights(model, str(path), allow_pt=False)
    assert digest(model) == digest(ToyNet(1))
