"""Decoding: the pixels of every format, animations, and chunks in which bad images do not affect good ones."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import simplejpeg
from pictures import LIMITS, PRESET, SHARD, chunk_of, code, decoded, difference, noise, pixels, png, sample, saved
from PIL import Image, ImageFile

from pipeline.data.decode import decode_chunk, decode_image
from pipeline.data.framing import PixelArray
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources.shards import Chunk, Failure, Sample


def full(data: bytes) -> PixelArray:
    """Return the pixels of the whole image as stored."""
    return np.asarray(decode_image(data, LIMITS).image)


# JPEG


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 13), (64, 64), (333, 250)])
@pytest.mark.parametrize("quality", [30, 95])
def test_a_jpeg_is_decoded_as_pillow_decodes_it(width: int, height: int, subsampling: int, quality: int) -> None:
    data = saved(noise(width, height), "JPEG", quality=quality, subsampling=subsampling)
    assert difference(full(data), Image.open(io.BytesIO(data))) == 0


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
def test_other_kinds_of_jpeg_are_decoded_as_pillow_decodes_them(options: dict[str, Any]) -> None:
    data = saved(noise(100, 80), "JPEG", **options)
    assert difference(full(data), Image.open(io.BytesIO(data))) == 0


def test_the_fast_decoder_is_used_for_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("Pillow decoded the image"))
    assert full(saved(noise(20, 10), "JPEG")).shape == (10, 20, 3)


def test_pillow_decodes_what_the_fast_decoder_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    data = saved(noise(20, 10), "JPEG")
    assert np.array_equal(full(data), np.asarray(Image.open(io.BytesIO(data))))


# colour


def test_grey_is_repeated_over_the_channels() -> None:
    image = noise(30, 20, "L")
    for data in (saved(image), saved(image, "JPEG", quality=100)):
        got = full(data)
        assert np.array_equal(got, np.repeat(np.asarray(Image.open(io.BytesIO(data)))[:, :, None], 3, axis=2))


def test_one_bit_images_are_black_and_white() -> None:
    assert full(saved(Image.fromarray(np.array([[True, False]])))).tolist() == [[[255] * 3, [0] * 3]]


def test_16_bit_grey_keeps_its_high_byte() -> None:
    values = np.array([[0, 255, 256, 511, 40_000, 65_535]], np.uint16)
    assert full(saved(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 1, 1, 156, 255]


def test_16_bit_colour_keeps_its_high_byte() -> None:
    assert full(png(1, 1, 16, 2, b"\0" + bytes([1, 200, 77, 3, 255, 255])))[0, 0].tolist() == [1, 77, 255]


def test_16_bit_colour_with_transparency_keeps_its_high_byte() -> None:
    assert full(png(1, 1, 16, 6, b"\0" + bytes([1, 200, 77, 3, 254, 255, 255, 255])))[0, 0].tolist() == [1, 77, 254]


def test_a_palette_is_looked_up() -> None:
    palette = chunk_of(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    assert full(png(2, 1, 8, 3, b"\0\1\0", palette)).tolist() == [[[40, 50, 60], [10, 20, 30]]]


def test_a_transparent_palette_entry_is_white() -> None:
    extra = chunk_of(b"PLTE", bytes([10, 20, 30, 40, 50, 60])), chunk_of(b"tRNS", bytes([255, 0]))
    assert full(png(2, 1, 8, 3, b"\0\1\0", *extra)).tolist() == [[[255] * 3, [10, 20, 30]]]


def test_a_transparent_colour_is_white() -> None:
    transparent = chunk_of(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    assert full(png(2, 1, 8, 2, bytes([0, 1, 2, 3, 9, 9, 9]), transparent)).tolist() == [[[255] * 3, [9] * 3]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_composited_on_white(mode: str, kind: str) -> None:
    colour = (100, 50, 0) if mode == "RGBA" else (100,)
    image = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (*colour, alpha))
    got = full(saved(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    expected = [[255 - (255 - (colour * 3)[i]) * alpha / 255 for i in range(3)] for alpha in (0, 128, 255)]
    assert np.allclose(got[0], expected, atol=1)


def test_cmyk_jpeg_is_converted_by_pillow() -> None:
    data = saved(noise(24, 16).convert("CMYK"), "JPEG", quality=95)
    assert np.array_equal(full(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_float_pixels_have_no_range() -> None:
    data = saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    assert code(data, DecodeLimits(("TIFF",))) == "mode"


@pytest.mark.parametrize("value", [0, 127, 255])
def test_a_constant_image_stays_constant(value: int) -> None:
    assert np.unique(pixels(saved(Image.new("RGB", (300, 200), (value,) * 3)))).tolist() == [value]


# animations


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "green")]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **lossless)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    image = decode_image(data, DecodeLimits(("PNG", "WEBP", "GIF"))).image
    assert np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


# chunks


def test_bad_images_fail_and_their_neighbours_do_not_change_by_a_bit() -> None:
    good = [sample(saved(noise(60 + i, 50)), f"good{i}") for i in range(3)]
    bad = [sample(b"hello", "bad0"), sample(saved(noise(9, 9))[:60], "bad1")]
    alone = decoded(*good)
    mixed = decoded(bad[0], good[0], good[1], bad[1], good[2])
    assert mixed.samples == alone.samples
    assert np.array_equal(mixed.pixels_NHWC, alone.pixels_NHWC)
    assert [(failure.key, failure.code) for failure in mixed.failures] == [("bad0", "format"), ("bad1", "corrupt")]


def test_failures_of_reading_stay_with_the_chunk() -> None:
    earlier = Failure("e", "s.tar", "read", "label", "")
    chunk = Chunk(SHARD, 4, last=False, samples=(sample(b"bad"),), failures=(earlier,))
    result = decode_chunk(chunk, PRESET, LIMITS)
    assert [failure.key for failure in result.failures] == ["e", "k"]
    assert (result.pixels_NHWC.shape, result.pixels_NHWC.dtype) == ((0, 224, 224, 3), np.uint8)
    assert (result.chunk.shard, result.chunk.ordinal, result.chunk.last) == (SHARD, 4, False)


def test_encoded_bytes_are_counted_and_dropped() -> None:
    data = saved(noise(20, 10))
    chunk = decoded(sample(data), sample(b"bad", "b"))
    assert (chunk.encoded_bytes, chunk.chunk.samples, chunk.chunk.failures) == (len(data) + 3, (), ())


def test_the_metadata_of_a_sample_is_kept() -> None:
    (found,) = decoded(Sample("k", "s.tar", saved(noise(20, 10)), 7, None)).samples
    assert (found.key, found.label, found.boxes_xyxy, found.size) == ("k", 7, None, (10, 20))
