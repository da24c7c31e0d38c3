"""The codec keeps its stated error bound, refuses wrong input, and decodes stacks like single maps."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.maps.codec import MAP_DTYPES, EncodedMap, FloatArray, MapDtype, decode, decode_stack, encode

BOUNDS = {"u8": 510, "f16": 4096}
BYTES = {"u8": 1, "f16": 2, "f32": 4}
LARGEST = float(np.finfo(np.float32).max)

maps = st.one_of(
    *(
        arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-top, top, width=32))
        for top in (LARGEST, 1.0, 2.0**-140)
    )
)


def uv(*rows: list[float]) -> FloatArray:
    return np.array(rows, dtype=np.float32)


def largest_error(map_uv: FloatArray, dtype: MapDtype) -> float:
    """Return the stated bound: a fraction of the range, plus half a step of float32."""
    if dtype == "f32":
        return 0.0
    values = map_uv.astype(np.float64)
    half_step = max(np.abs(values).max() * 2.0**-24, 2.0**-150)
    return float(((values.max() - values.min()) / BOUNDS[dtype] + half_step) * (1 + 1e-12))


@pytest.mark.parametrize("dtype", MAP_DTYPES)
@given(map_uv=maps)
@example(map_uv=uv([-LARGEST, LARGEST]))
@example(map_uv=uv([0.0, 1e-45]))
@example(map_uv=uv([-3.0]))
@example(map_uv=uv([7.5, 7.5], [7.5, 7.5]))
@example(map_uv=uv([1.0, np.nextafter(np.float32(1), np.float32(2))]))
def test_a_map_is_decoded_within_the_stated_error(dtype: MapDtype, map_uv: FloatArray) -> None:
    encoded = encode(map_uv, dtype)
    decoded = decode(encoded)
    assert decoded.dtype == np.float32
    assert decoded.shape == map_uv.shape
    assert len(encoded.data) == map_uv.size * BYTES[dtype]
    assert np.abs(decoded.astype(np.float64) - map_uv).max() <= largest_error(map_uv, dtype)


@pytest.mark.parametrize("dtype", MAP_DTYPES)
@given(map_uv=maps)
def test_the_range_is_kept_exactly(dtype: MapDtype, map_uv: FloatArray) -> None:
    encoded = encode(map_uv, dtype)
    assert (encoded.low, encoded.high) == (float(map_uv.min()), float(map_uv.max()))
    assert decode(encoded).min() == map_uv.min()


@pytest.mark.parametrize("dtype", MAP_DTYPES)
@pytest.mark.parametrize("value", [0.0, -1.5, 1e-45, LARGEST, -LARGEST])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2)])
def test_a_constant_map_is_decoded_exactly(dtype: MapDtype, value: float, shape: tuple[int, int]) -> None:
    map_uv = np.full(shape, value, np.float32)
    assert np.array_equal(decode(encode(map_uv, dtype)), map_uv)


def test_u8_divides_the_range_into_255_steps() -> None:
    encoded = encode(uv([-1.0, 0.0, 1.0]))
    assert (encoded.dtype, list(encoded.data)) == ("u8", [0, 128, 255])


def test_f16_is_little_endian_half_precision_of_the_unit_range() -> None:
    encoded = encode(uv([2.0, 3.0, 4.0]), "f16")
    assert encoded.data == np.array([0, 0.5, 1], "<f2").tobytes()


@pytest.mark.parametrize("dtype", MAP_DTYPES)
def test_maps_are_stored_row_by_row_for_any_memory_layout(dtype: MapDtype) -> None:
    map_uv = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert encode(np.asfortranarray(map_uv), dtype) == encode(map_uv, dtype)
    assert encode(map_uv[:, ::-1], dtype) != encode(map_uv, dtype)


@pytest.mark.parametrize("dtype", MAP_DTYPES)
@pytest.mark.parametrize(
    "map_uv",
    [
        uv([1.0, np.nan]),
        uv([1.0, np.inf]),
        uv([-np.inf, 1.0]),
        np.zeros((0, 3), np.float32),
        np.zeros((3, 0), np.float32),
        np.zeros((2, 2, 2), np.float32),
        np.zeros(4, np.float32),
        np.float32(1).reshape(()),
    ],
)
def test_input_that_is_not_a_finite_map_is_refused(dtype: MapDtype, map_uv: FloatArray) -> None:
    with pytest.raises(ValueError, match="two-dimensional and finite"):
        encode(map_uv, dtype)


@pytest.mark.parametrize("dtype", MAP_DTYPES)
@pytest.mark.parametrize("change", [-1, 1, 4, -100])
def test_a_wrong_number_of_bytes_is_refused(dtype: MapDtype, change: int) -> None:
    right = encode(np.ones((3, 4), np.float32), dtype)
    data = right.data[:change] if change < 0 else right.data + bytes(change)
    with pytest.raises(ValueError, match="bytes"):
        decode(EncodedMap(data, 3, 4, dtype, right.low, right.high))


def test_bytes_missing_in_one_map_of_a_stack_are_not_taken_from_the_next() -> None:
    ranges_N2 = np.array([[0, 1], [0, 1]], np.float32)
    with pytest.raises(ValueError, match="has 4 bytes"):
        decode_stack([b"123", b"45678"], 2, 2, "u8", ranges_N2)


def test_an_unknown_dtype_is_refused_with_a_list_of_the_known_ones() -> None:
    wrong: Any = "u16"
    with pytest.raises(ValueError, match="unknown map dtype 'u16', known: u8, f16, f32"):
        decode(EncodedMap(b"12", 1, 1, wrong, 0, 1))


@pytest.mark.parametrize("dtype", MAP_DTYPES)
@given(
    stack=arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.just(3), st.just(2)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_a_stack_is_decoded_like_its_single_maps(dtype: MapDtype, stack: FloatArray) -> None:
    encoded = [encode(map_uv, dtype) for map_uv in stack]
    ranges_N2 = np.array([[one.low, one.high] for one in encoded], np.float32)
    together = decode_stack([one.data for one in encoded], 3, 2, dtype, ranges_N2)
    assert np.array_equal(together, np.stack([decode(one) for one in encoded]))


def test_an_empty_stack_is_decoded() -> None:
    assert decode_stack([], 3, 2, "u8", np.empty((0, 2), np.float32)).shape == (0, 3, 2)
