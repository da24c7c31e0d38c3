"""Decoding in the sandbox gives the same pixels, and an image that crashes or blocks it is one refusal."""

import os
import random
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gauges import within
from pictures import LIMITS, PRESET, noise, saved
from PIL import Image

from pipeline.data.decode import frame_image
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.framing import Framed
from pipeline.data.limits import UnreadableImageError
from pipeline.data.plain import plain_header

BOXES = ((40.0, 40.0, 90.0, 80.0), (100.0, 20.0, 160.0, 110.0))
ROTATED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
GOOD = {
    "baseline": saved(noise(200, 150), "JPEG", quality=90),
    "grey": saved(noise(200, 150, "L"), "JPEG"),
    "progressive": saved(noise(200, 150), "JPEG", progressive=True),
    "rotated": saved(
        noise(150, 200), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "cmyk": saved(noise(64, 48).convert("CMYK"), "JPEG"),
    "png": saved(noise(200, 150)),
    "alpha": saved(noise(64, 48, "RGBA")),
    "palette": saved(noise(64, 48).quantize(16)),
    "webp": saved(noise(120, 90), "WEBP"),
    "thin": saved(noise(1, 400)),
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DecodeSandbox]:
    with closing(DecodeSandbox()) as process:
        yield process


def same(one: Framed, two: Framed) -> bool:
    alike = (one.boxes_xyxy, one.size, one.box_indices) == (two.boxes_xyxy, two.size, two.box_indices)
    return alike and np.array_equal(one.pixels_HWC, two.pixels_HWC)


def refusal(process: DecodeSandbox, data: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        process.frame(data, None, PRESET, LIMITS)
    return caught.value.code


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("boxes", [None, BOXES])
def test_the_sandbox_gives_the_same_pixels_and_boxes(
    sandbox: DecodeSandbox, name: str, boxes: tuple[tuple[float, float, float, float], ...] | None
) -> None:
    expected = frame_image(GOOD[name], boxes, PRESET, LIMITS)
    assert same(sandbox.frame_in_subprocess(GOOD[name], boxes, PRESET, LIMITS), expected)
    assert same(sandbox.frame(GOOD[name], boxes, PRESET, LIMITS), expected)


def test_only_baseline_jpegs_of_usual_size_are_plain() -> None:
    assert {name for name, data in GOOD.items() if plain_header(data)} == {"baseline", "grey", "rotated"}
    assert not plain_header(saved(Image.new("L", (4001, 4000)), "JPEG"))
    assert not plain_header(b"")


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "PIL", "json", "pipeline"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with closing(DecodeSandbox()) as process:
        assert process.frame(GOOD["png"], None, PRESET, LIMITS).size == (150, 200)
    assert not (tmp_path / "ran").exists()


def test_plain_images_start_no_subprocess() -> None:
    with closing(DecodeSandbox()) as process:
        process.frame(GOOD["baseline"], None, PRESET, LIMITS)
        assert process._process is None


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", GOOD["png"][:200], b"GIF89a" + bytes(40)])
def test_refusals_are_the_same_as_in_process(sandbox: DecodeSandbox, data: bytes) -> None:
    with pytest.raises(UnreadableImageError) as expected:
        frame_image(data, None, PRESET, LIMITS)
    with pytest.raises(UnreadableImageError) as caught:
        sandbox.frame(data, None, PRESET, LIMITS)
    assert (caught.value.code, str(caught.value)) == (expected.value.code, str(expected.value))


def test_an_image_that_takes_too_long_is_refused_and_the_next_one_is_decoded() -> None:
    with closing(DecodeSandbox(deadline=5.0)) as process:
        process.frame(GOOD["png"], None, PRESET, LIMITS)
        assert process._process is not None
        os.kill(process._process.pid, signal.SIGSTOP)
        process._deadline = 0.2
        assert refusal(process, GOOD["png"]) == "deadline"
        process._deadline = 20.0
        assert same(process.frame(GOOD["png"], None, PRESET, LIMITS), frame_image(GOOD["png"], None, PRESET, LIMITS))


def test_a_machine_that_stands_still_once_loses_no_image() -> None:
    with closing(DecodeSandbox(deadline=10.0)) as process:
        process.frame(GOOD["png"], None, PRESET, LIMITS)
        assert process._process is not None
        stopped = process._process
        os.kill(stopped.pid, signal.SIGSTOP)
        assert same(process.frame(GOOD["png"], None, PRESET, LIMITS), frame_image(GOOD["png"], None, PRESET, LIMITS))
        assert stopped.poll() == -signal.SIGKILL


def test_an_image_that_takes_too_much_memory_is_refused_and_the_next_one_is_decoded() -> None:
    large = saved(Image.new("RGBA", (5000, 5000)))
    with closing(DecodeSandbox(memory=64 << 20)) as process:
        assert refusal(process, large) == "memory"
        assert process.frame(GOOD["png"], None, PRESET, LIMITS).size == (150, 200)


def test_a_subprocess_killed_from_outside_loses_no_image() -> None:
    with closing(DecodeSandbox()) as process:
        for _ in range(2):
            assert same(
                process.frame(GOOD["png"], None, PRESET, LIMITS), frame_image(GOOD["png"], None, PRESET, LIMITS)
            )
            assert process._process is not None
            process._process.kill()
            process._process.wait()


def test_an_image_that_kills_the_subprocess_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = list[int]()

    def dying(*_: object) -> "subprocess.Popen[bytes]":
        starts.append(1)
        code = "import os, sys; sys.stdin.buffer.readline(); os.abort()"
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    monkeypatch.setattr("pipeline.data.decode_sandbox._start_subprocess", dying)
    with closing(DecodeSandbox()) as process:
        assert refusal(process, GOOD["png"]) == "crashed"
        assert (len(starts), process._process) == (2, None)


def test_closing_ends_the_subprocess() -> None:
    with closing(DecodeSandbox()) as process:
        process.frame(GOOD["png"], None, PRESET, LIMITS)
        process = process._process
        assert process is not None
    assert process.poll() is not None


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 30)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def swapped(data: bytes, chance: random.Random) -> bytes:
    one, two, three = sorted(chance.sample(range(len(data)), 3))
    return data[:one] + data[two:three] + data[one:two] + data[three:]


def zeroed(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + bytes(min(64, len(data) - start)) + data[start + 64 :]


def huge(data: bytes, chance: random.Random) -> bytes:
    """Set a huge image size in the header; the checksum of a PNG is corrected."""
    side = chance.choice([20_000, 65_535, 2**31 - 1])
    if data.startswith(b"\x89PNG"):
        header = b"IHDR" + struct.pack(">II", side, side) + data[24:29]
        return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = data.find(marker)
        if at > 0:
            return data[: at + 5] + struct.pack(">HH", min(side, 65_535), min(side, 65_535)) + data[at + 9 :]
    return data[:26] + struct.pack("<HH", min(side, 16_383), min(side, 16_383)) + data[30:]


def disguised(data: bytes, chance: random.Random) -> bytes:
    return chance.choice([b"GIF89a", b"%!PS-Adobe", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBP"]) + data[8:]


def longer(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.randint(1, 2000))


def doubled(data: bytes, chance: random.Random) -> bytes:
    return data + data[-2:] + data


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut, flipped, swapped, zeroed, huge, disguised, longer, doubled,
)  # fmt: skip


def outcome(process: DecodeSandbox, data: bytes) -> str:
    try:
        assert process.frame(data, None, PRESET, LIMITS).pixels_HWC.shape == (224, 224, 3)
    except UnreadableImageError as error:
        return error.code
    return "decoded"


def decode_mutants(process: DecodeSandbox, each: int, seed: int) -> dict[str, int]:
    """Decode `each` mutants of each good image within limits; the good image must still decode the same afterwards."""
    chance = random.Random(seed)
    assert process._process is not None
    processes = (os.getpid(), process._process.pid)
    expected = {name: frame_image(data, None, PRESET, LIMITS) for name, data in GOOD.items()}
    codes = dict[str, int]()
    for name, data in GOOD.items():
        for turn in range(each):
            mutant = MUTATIONS[turn % len(MUTATIONS)](data, chance)
            with within(2, 1024, *processes):
                code = outcome(process, mutant)
            codes[code] = codes.get(code, 0) + 1
            assert same(process.frame_in_subprocess(data, None, PRESET, LIMITS), expected[name])
    return codes


def test_mutants_are_decoded_or_refused_and_have_no_side_effects(sandbox: DecodeSandbox) -> None:
    sandbox.frame_in_subprocess(GOOD["png"], None, PRESET, LIMITS)
    first = sandbox._process
    codes = decode_mutants(sandbox, each=100, seed=20261121)
    assert sandbox._process is first, "the subprocess survives"
    assert codes.keys() >= {"decoded", "corrupt", "format", "too_large"}
    assert codes.keys() <= {"decoded", "corrupt", "format", "too_large", "memory", "mode"}
