"""Masks of parts are decoded, and follow their image through orientation, resize and crop without being mixed."""

import io
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parted import SIZE, VALUES, Index, coloured, drawn, encoded, mask, members, png
from pictures import LIMITS, PRESET, chunk_of, decoded
from PIL import Image, ImageOps

from pipeline.data.arrays import frame_decoded
from pipeline.data.decode import frame_image
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.data.part_masks import PartMask, index_image
from pipeline.data.sources.shards import PartValues, Sample
from pipeline.settings.preprocess import Preprocess

GIVEN = PartValues(tuple(VALUES), 1)
NEAREST = Preprocess(120, None, "nearest")
ORIENTATIONS = range(1, 9)


def index_in(pixels_HWC: Index) -> Index:
    """Return the index of the part that each pixel of `coloured` shows."""
    return (pixels_HWC[:, :, 0] / 80).round().astype(np.uint8)


def turned(image: Image.Image, orientation: int, kind: str = "PNG", **options: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif, **options)


def framed_index(data: bytes, index_HW: Index, preprocess: Preprocess, limits: DecodeLimits = LIMITS) -> Index:
    found = frame_image(data, None, preprocess, limits, mask(index_HW)).index_HW
    assert found is not None
    assert (found.dtype, found.shape) == (np.uint8, preprocess.size)
    return found


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_turns_the_mask_with_its_image(orientation: int) -> None:
    data = turned(coloured(drawn()), orientation)
    found = framed_index(data, drawn(), NEAREST)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = index_in(np.asarray(upright.resize((120, 120), Image.Resampling.NEAREST)))
    assert np.array_equal(found, expected)
    assert set(found.flatten().tolist()) == {0, 1, 2, 3}


PRESETS = {
    "resize and crop": Preprocess(32, 36),
    "squash": Preprocess(48, None),
    "bicubic": Preprocess(32, 40, "bicubic"),
    "without antialias": Preprocess(32, 36, antialias=False),
    "a crop that is not square": Preprocess((24, 40), 30),
    "a crop beyond the image": Preprocess(64, 40),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_mask_is_resized_and_cropped_as_its_image(name: str) -> None:
    """Inside of the parts and of the background, where interpolation mixes nothing, the two agree."""
    index_HW = drawn((240, 160))
    found = frame_image(encoded(coloured(index_HW)), None, PRESETS[name], LIMITS, mask(index_HW))
    assert found.index_HW is not None
    assert set(found.index_HW.flatten().tolist()) == {0, 1, 2, 3}
    differs_HW = found.index_HW != index_in(found.pixels_HWC)
    edge_HW = np.zeros_like(differs_HW)
    for axis in (0, 1):
        changes = np.diff(found.index_HW.astype(int), axis=axis) != 0
        for before in (0, 1):
            pad = [(0, 0), (0, 0)]
            pad[axis] = (before, 1 - before)
            edge_HW |= np.pad(changes, pad)
    assert not (differs_HW & ~edge_HW).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(10, 40), st.integers(0, 20), st.sampled_from([1, 3, 6, 8]))
def test_a_mask_moves_exactly_as_an_image_of_its_indices(
    width: int, height: int, crop: int, more: int, orientation: int
) -> None:
    index_HW = drawn((width, height))
    preprocess = Preprocess(crop, crop + more if more else None, "nearest")
    found = frame_image(turned(coloured(index_HW), orientation), None, preprocess, LIMITS, mask(index_HW))
    assert np.array_equal(found.index_HW, index_in(found.pixels_HWC))


def test_a_long_image_is_framed_with_its_mask() -> None:
    index_HW = drawn((600, 40))
    preprocess = Preprocess(32, 32, "nearest")
    found = frame_image(encoded(coloured(index_HW)), None, preprocess, LIMITS, mask(index_HW))
    assert np.array_equal(found.index_HW, index_in(found.pixels_HWC))


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_mask_of_a_scaled_image_is_scaled(orientation: int) -> None:
    index_HW = drawn((1200, 900))
    data = turned(coloured(index_HW), orientation, "JPEG", quality=95)
    limits = DecodeLimits(max_pixels=300_000, too_large="scale")
    scaled, whole = (framed_index(data, index_HW, PRESET, each) for each in (limits, LIMITS))
    assert (scaled != whole).mean() < 0.01
    with pytest.raises(UnreadableImageError, match="the mask of the parts has 600x450 pixels, and the image 1200x900"):
        framed_index(data, drawn((600, 450)), PRESET, limits)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DecodeSandbox]:
    with closing(DecodeSandbox()) as sandbox:
        yield sandbox


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_sandbox_frames_masks_as_this_process(sandbox: DecodeSandbox, kind: str) -> None:
    data = turned(coloured(drawn()), 6, kind)
    boxes = ((1.0, 2.0, 30.0, 20.0),)
    found = sandbox.frame(data, boxes, PRESET, LIMITS, mask(drawn()))
    expected = frame_image(data, boxes, PRESET, LIMITS, mask(drawn()))
    assert np.array_equal(found.index_HW, expected.index_HW)
    assert np.array_equal(found.pixels_HWC, expected.pixels_HWC)
    assert (found.boxes_xyxy, found.size, found.box_indices) == (expected.boxes_xyxy, expected.size, (0,))
    assert sandbox.frame(data, None, PRESET, LIMITS).index_HW is None


def test_masks_are_decoded_in_the_sandbox_even_if_their_image_is_a_plain_jpeg(sandbox: DecodeSandbox) -> None:
    data = encoded(coloured(drawn()), "JPEG")
    with pytest.raises(UnreadableImageError, match="cannot be decoded as PNG") as caught:
        sandbox.frame(data, None, PRESET, LIMITS, PartMask(b"garbage", 3))
    assert caught.value.code == "parts"
    with closing(DecodeSandbox()) as fresh:
        fresh.frame(data, None, PRESET, LIMITS)
        assert fresh._process is None
        fresh.frame(data, None, PRESET, LIMITS, mask(drawn()))
        assert fresh._process is not None


def test_a_decoder_has_no_parts() -> None:
    with pytest.raises(UnreadableImageError, match="parts belong to image files; a decoder") as caught:
        frame_decoded(lambda data: np.zeros((4, 4, 3), np.uint8), b"", None, PRESET, LIMITS, mask(drawn()))
    assert caught.value.code == "parts"


def sample(png_bytes: bytes | None, given: PartValues | None = GIVEN) -> Sample:
    return Sample("k", "s.tar", encoded(coloured(drawn())), 1, None, parts=given, part_mask=png_bytes)


def test_a_decoded_sample_has_its_parts() -> None:
    (found,) = decoded(sample(png(drawn())), preprocess=NEAREST).samples
    assert found.parts is not None
    assert found.parts.given == GIVEN
    assert set(found.parts.index_HW.flatten().tolist()) == {0, 1, 2, 3}
    assert decoded(sample(None), preprocess=NEAREST).samples[0].parts is None
    assert decoded(sample(None, None), preprocess=NEAREST).samples[0].parts is None


# which masks are valid


@pytest.mark.parametrize("encoded_mask", [png(drawn()), png(drawn(), "P"), png(drawn(), "P", colours=4)])
def test_grey_and_palette_masks_hold_indices(encoded_mask: bytes) -> None:
    assert np.array_equal(np.asarray(index_image(PartMask(encoded_mask, 3), SIZE)), drawn())


def test_metadata_of_the_mask_turns_nothing() -> None:
    turned_mask = turned(Image.fromarray(drawn()), 6)
    assert np.array_equal(np.asarray(index_image(PartMask(turned_mask, 3), SIZE)), drawn())


def deep() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawn().astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def gap() -> Index:
    index_HW = drawn()
    index_HW[index_HW == 2] = 0
    return index_HW


def nine() -> Index:
    index_HW = drawn()
    index_HW[0, 0] = 9
    return index_HW


WRONG = {
    "another size": (png(drawn((30, 20))), "the mask of the parts has 30x20 pixels, and the image 60x40"),
    "turned": (png(drawn().T.copy()), "has 40x60 pixels, and the image 60x40"),
    "not an image": (b"no image", "the mask of the parts cannot be decoded as PNG"),
    "empty": (b"", "cannot be decoded as PNG"),
    "cut off": (png(drawn())[:-40], "cannot be decoded as PNG"),
    "a JPEG": (encoded(Image.fromarray(drawn()), "JPEG"), "cannot be decoded as PNG"),
    "16 bits": (deep(), "the mask of the parts is not an 8-bit grey or palette image"),
    "1 bit": (png(drawn(), "1"), "is not an 8-bit grey or palette image"),
    "colours": (png(drawn(), "RGB"), "is not an 8-bit grey or palette image"),
    "transparent": (png(drawn(), "LA"), "is not an 8-bit grey or palette image"),
    "fewer parts": (png(drawn().clip(0, 2)), "3 values of parts, but the largest index in their mask is 2"),
    "no part": (png(drawn() * 0), "3 values of parts, but the largest index in their mask is 0"),
    "more parts": (png(drawn() + 1), "3 values of parts, but the largest index in their mask is 4"),
    "too many parts": (png(nine()), "the mask of the parts has the index 9; an image has at most 8 parts"),
    "a part without pixels": (png(gap()), "part 2 has no pixel in the mask of the parts"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_mask_is_a_failure_row(name: str) -> None:
    data, sentence = WRONG[name]
    chunk = decoded(sample(data), sample(png(drawn())))
    (failure,) = chunk.failures
    assert (failure.stage, failure.code) == ("decode", "parts")
    assert sentence in failure.detail
    assert len(chunk.samples) == 1


def test_a_header_that_promises_too_much_is_a_failure() -> None:
    head = chunk_of(b"IHDR", (60_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0]))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk_of(b"IEND", b"")
    with pytest.raises(UnreadableImageError):
        index_image(PartMask(bomb, 1), (60_000, 60_000))


def test_the_members_of_the_tests_fit_together() -> None:
    files = dict(members())
    found = frame_image(files["k.png"], None, NEAREST, LIMITS, PartMask(files["k.parts.png"], 3))
    assert np.array_equal(found.index_HW, index_in(found.pixels_HWC))
