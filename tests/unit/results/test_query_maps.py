"""Maps in SQL and as arrays: `map_values` decodes bit for bit like the codec, and maps can be upsampled."""

from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from handmade import GRID, RunMaker
from queries import refusal, rows

from pipeline.maps.codec import MAP_DTYPES, MapDtype, decode, encode
from pipeline.maps.heatmaps import upsample
from pipeline.results.query import Run, open_run
from pipeline.results.views import MAP_VALUES

CODES = {"u8": np.arange(256, dtype="u1"), "f16": np.arange(0x3C01, dtype="<u2")}
"""Every byte, and every half-precision number in [0, 1]."""
RANGES = [(0, 1), (-1, 1), (-3.4e38, 3.4e38), (1e-45, 3e-45), (0.1, 0.1), (-7.5e-3, 12345.678), (1 / 3, 1e30)]


def values_in_sql(table: pa.Table) -> list[list[float] | None]:
    """Decode the maps of a table with DuckDB, in its order."""
    with duckdb.connect() as connection:
        for statement in MAP_VALUES:
            connection.execute(statement)
        connection.register("maps", table)
        found: list[list[float] | None] = (
            connection.sql("SELECT map_values(map, map_dtype, map_min, map_max) AS found FROM maps ORDER BY place")
            .to_arrow_table()["found"]
            .to_pylist()
        )
    return found


def table_of(maps: list[tuple[bytes | None, str | None, float | None, float | None]]) -> pa.Table:
    names = {"map": pa.binary(), "map_dtype": pa.string(), "map_min": pa.float32(), "map_max": pa.float32()}
    columns = [pa.array(column, dtype) for column, dtype in zip(zip(*maps, strict=True), names.values(), strict=True)]
    return pa.table([pa.array(range(len(maps))), *columns], names=["place", *names])


def same_bits(found: npt.ArrayLike, expected: npt.ArrayLike) -> bool:
    return np.asarray(found, np.float32).tobytes() == np.asarray(expected, np.float32).tobytes()


@pytest.mark.parametrize("dtype", ["u8", "f16"])
def test_every_code_is_decoded_to_the_last_bit(dtype: MapDtype) -> None:
    codes = CODES[dtype]
    table = table_of([(codes.tobytes(), dtype, np.float32(low), np.float32(high)) for low, high in RANGES])
    for (low, high), found in zip(RANGES, values_in_sql(table), strict=True):
        encoded = encode(np.zeros((1, 1), np.float32), dtype)
        whole = type(encoded)(codes.tobytes(), 1, len(codes), dtype, float(np.float32(low)), float(np.float32(high)))
        assert same_bits(found, decode(whole)[0])


@pytest.mark.parametrize("dtype", MAP_DTYPES)
def test_maps_of_any_range_are_decoded_to_the_last_bit(dtype: MapDtype) -> None:
    generator = np.random.default_rng(0)
    scales = 10.0 ** generator.integers(-44, 38, 300)
    maps = [(generator.standard_normal((3, 5)) * scale).astype(np.float32) for scale in scales]
    encoded = [encode(map_uv, dtype) for map_uv in [*maps, np.full((2, 2), -0.0, np.float32)]]
    table = table_of([(each.data, each.dtype, each.low, each.high) for each in encoded])
    found = values_in_sql(table)
    assert all(same_bits(values, decode(each).ravel()) for values, each in zip(found, encoded, strict=True))


def test_a_row_without_a_map_has_no_values_and_an_unknown_encoding_is_refused(opened: Run) -> None:
    assert values_in_sql(table_of([(None, None, None, None), (b"", "u8", 0, 1)])) == [None, []]
    assert "unknown map dtype u9" in refusal(opened, "SELECT map_values('x'::BLOB, 'u9', 0, 1) FROM images")


def test_the_mean_map_can_be_computed_in_sql(opened: Run) -> None:
    mean = """
    SELECT avg(value) FROM (
      SELECT unnest(range(map_height * map_width)) AS cell,
        unnest(map_values(map, map_dtype, map_min, map_max)) AS value
      FROM explanations WHERE method = 'gradcam')
    GROUP BY cell ORDER BY cell
    """
    maps_Nuv = opened.maps("method = 'gradcam'")
    assert len(maps_Nuv) == 4
    assert [value for (value,) in rows(opened, mean)] == pytest.approx(maps_Nuv.mean(0, np.float64).ravel().tolist())


def test_values_are_in_row_major_order(opened: Run) -> None:
    values = rows(opened, "SELECT map_values(map, map_dtype, map_min, map_max) FROM explanations ORDER BY ALL LIMIT 1")
    assert values[0][0] == sorted(values[0][0])
    assert len(values[0][0]) == GRID[0] * GRID[1]


@pytest.mark.parametrize("size", [(3, 4), (7, 9), (2, 2), (64, 48)])
def test_maps_are_upsampled_like_heat_maps_without_scaling(opened: Run, size: tuple[int, int]) -> None:
    maps_Nuv = opened.maps("method = 'scorecam'")
    large_NHW = opened.maps("method = 'scorecam'", size=size)
    assert (large_NHW.shape, large_NHW.dtype) == ((3, *size), np.float32)
    expected = upsample(torch.from_numpy(maps_Nuv)[:, None], size)[:, 0]
    assert torch.equal(torch.from_numpy(large_NHW), expected)
    assert large_NHW.max() > 1, "not scaled to [0, 1]"


def test_an_empty_result_has_the_requested_size(opened: Run) -> None:
    assert opened.maps("method = 'none'", size=(5, 6)).shape == (0, 5, 6)


def test_reading_maps_without_upsampling_does_not_import_torch(small_run: RunMaker) -> None:
    import subprocess
    import sys

    code = (
        f"import pipeline, sys; pipeline.open_run({str(small_run.folder)!r}).maps(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_macro_cannot_be_replaced_by_a_query(small_run: RunMaker, tmp_path: Path) -> None:
    with open_run(small_run.folder) as run:
        assert "exactly one SELECT" in refusal(run, "CREATE OR REPLACE MACRO map_values(a, b, c, d) AS 1")
