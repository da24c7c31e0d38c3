"""Images that decoding refuses: other formats, too many pixels and damage, each with its code."""

import random
import zlib

import numpy as np
import pytest
import simplejpeg
from pictures import LIMITS, chunk_of, code, decoded, noise, png, sample, saved
from PIL import Image, ImageFile

from pipeline.data.decode import decode_image
from pipeline.data.limits import DecodeLimits

WRITTEN = ("TIFF", "BMP", "GIF", "PPM", "TGA", "PCX", "ICO", "EPS", "PDF", "AVIF", "JPEG2000")
OTHERS = {kind: saved(noise(16, 16), kind) for kind in WRITTEN}
OTHERS |= {
    "PSD": b"8BPS\0\1" + b"\0" * 200,
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "PS": b"%!PS-Adobe-3.0\n(canary) (w) file closefile\n",
    "WAV": b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 40,
    "ZIP": b"PK\3\4" + b"\0" * 60,
    "text": b"hello",
    "nothing": b"",
    "pickle": b"\x80\x04cos\nsystem\n",
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
def test_other_formats_are_refused_under_any_name(data: bytes) -> None:
    chunk = decoded(sample(data, "photo.jpg"))
    assert [(failure.key, failure.stage, failure.code) for failure in chunk.failures] == [
        ("photo.jpg", "decode", "format")
    ]


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_formats_refused_by_default_open_when_they_are_allowed(kind: str) -> None:
    assert decode_image(OTHERS[kind], DecodeLimits((kind,))).image.size == (16, 16)


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
def test_the_parsers_of_other_formats_are_never_called(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []
    Image.init()
    for name in set(Image.OPEN) - set(LIMITS.formats):
        monkeypatch.setitem(Image.OPEN, name, (lambda *args, name=name: entered.append(name), lambda prefix: True))
    assert (code(data), entered) == ("format", [])


def test_a_format_that_is_allowed_is_read() -> None:
    assert decode_image(OTHERS["BMP"], DecodeLimits(("BMP",))).image.size == (16, 16)


def test_a_format_that_is_not_allowed_is_refused() -> None:
    assert code(saved(noise(8, 8)), DecodeLimits(("JPEG",))) == "format"


def header_only(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, b"\0" * 100)


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (8001, 8000)])
def test_too_many_pixels_are_refused_from_the_header(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("the image was decoded"))
    assert code(header_only(width, height)) == "too_large"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_pixel_limit_is_exact(kind: str) -> None:
    data = saved(noise(30, 20), kind)
    assert decode_image(data, DecodeLimits(max_pixels=600)).image.size == (30, 20)
    assert code(data, DecodeLimits(max_pixels=599)) == "too_large"


def test_a_jpeg_above_the_limit_never_reaches_the_fast_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *args: pytest.fail("the image was decoded"))
    assert code(saved(noise(30, 20), "JPEG"), DecodeLimits(max_pixels=599)) == "too_large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("part", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
def test_a_truncated_image_is_corrupt(kind: str, part: float) -> None:
    data = saved(noise(120, 90), kind)
    assert code(data[: max(16, int(len(data) * part))]) == "corrupt"


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_png_whose_data_is_damaged_is_corrupt(place: float) -> None:
    data = bytearray(saved(noise(64, 64)))
    data[int(len(data) * place)] ^= 0xFF
    assert code(bytes(data)) == "corrupt"


def test_a_png_of_zero_width_is_corrupt() -> None:
    assert code(png(0, 8, 8, 2, b"\0")) == "corrupt"


def test_a_text_chunk_bomb_is_corrupt() -> None:
    bomb = chunk_of(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (80 << 20), 9))
    assert code(png(1, 1, 8, 2, b"\0abc", bomb)) == "corrupt"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_random_damage_gives_an_image_or_a_code_reproducibly(kind: str) -> None:
    good, chance = saved(noise(40, 30), kind), random.Random(kind)
    seen = set()
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        first, second = decoded(sample(bytes(data))), decoded(sample(bytes(data)))
        assert len(first.samples) + len(first.failures) == 1
        assert first.failures == second.failures
        assert np.array_equal(first.pixels_NHWC, second.pixels_NHWC)
        seen |= {failure.code for failure in first.failures}
    assert "corrupt" in seen
    assert seen <= {"corrupt", "format", "too_large"}


@pytest.mark.parametrize("data", [b"", b"hello", saved(noise(8, 8))[:20], b"\xff\xd8\xff" + b"x" * 50])
def test_the_detail_contains_no_memory_address(data: bytes) -> None:
    (failure,) = decoded(sample(data)).failures
    assert "0x" not in failure.detail
