"""The SQL of the views and of `map_values`; it contains only constants of this project, never text from the data."""

from collections.abc import Mapping, Sequence

from schemas.explanation import (
    CURVE_SUFFIX,
    ERROR_FIELDS,
    IDENTITY_FIELDS,
    MAP_FIELDS,
    METADATA_FIELD,
    SHARD_STAGE,
    SOURCE_FIELDS,
)

VIEWS = ("explanations", "images", "failures", "classes", "leaderboard", "sanity")
RUN_COLUMNS = ("run", "model", "dataset")
"""Columns that an atlas prepends to the columns of a run."""

MAP_VALUES = (
    """
CREATE MACRO map_u8(map) AS list_transform(
  generate_series(1, octet_length(map)), lambda i: map[i:i]::BIT::UTINYINT / 255::DOUBLE)
""",
    """
CREATE MACRO map_f16(map) AS list_transform(
  list_transform(generate_series(1, octet_length(map), 2), lambda i: (map[i+1:i+1] || map[i:i])::BIT::USMALLINT),
  lambda bits: CASE WHEN bits < 1024 THEN bits / pow(2::DOUBLE, 24)
    ELSE (1024 + bits % 1024)::DOUBLE * pow(2::DOUBLE, (bits // 1024)::INT - 25) END)
""",
    """
CREATE MACRO map_f32(map) AS list_transform(
  generate_series(1, octet_length(map), 4),
  lambda i: (map[i+3:i+3] || map[i+2:i+2] || map[i+1:i+1] || map[i:i])::BIT::FLOAT)
""",
    """
CREATE MACRO map_values(map, map_dtype, map_min, map_max) AS CASE
  WHEN map IS NULL THEN NULL
  WHEN map_dtype = 'f32' THEN map_f32(map)
  ELSE list_transform(
    CASE map_dtype WHEN 'u8' THEN map_u8(map) WHEN 'f16' THEN map_f16(map)
      ELSE error('unknown map dtype ' || map_dtype) END,
    lambda unit: (map_min::DOUBLE + unit * (map_max::DOUBLE - map_min::DOUBLE))::FLOAT)
  END
""",
)
"""Decode a map in SQL to a list of its values in row-major order, bit for bit like `pipeline.maps.codec.decode`."""

_FIXED_COLUMNS = tuple(
    field.name for field in (*IDENTITY_FIELDS, *MAP_FIELDS, *ERROR_FIELDS, *SOURCE_FIELDS, METADATA_FIELD)
)
_EXPLAINED = "FROM parts WHERE method IS NOT NULL AND error_code IS NULL"
_FAILED = "FROM parts WHERE error_code IS NOT NULL"


def view_statements(
    *,
    scalar_metrics: bool,
    correct: str,
    names: Mapping[str, str],
    run_columns: Sequence[str] = (),
    has_metadata: bool = False,
) -> tuple[str, ...]:
    """Return the SQL statements that create the views on `parts`.

    The columns of class names come last, and cost nothing in queries that do not use them. A metric of an earlier
    version may have the name of one; then only the metric is there.

    Args:
        scalar_metrics: whether any metric is a number per map, so that the leaderboard can average it.
        correct: SQL that tells over the rows of one image whether the prediction is right; see `OutputKind`.
        names: SQL of the columns of class names; see `pipeline.results.class_names`.
        run_columns: columns of `parts` that identify the run in an atlas.
        has_metadata: whether `parts` has the column `metadata`.
    """
    run = "".join(f"{name}, " for name in run_columns)
    fixed = ", ".join(f"'{name}'" for name in (*run_columns, *_FIXED_COLUMNS))
    means = f"""
, avg(COLUMNS(lambda name: name NOT IN ({fixed}) AND NOT ends_with(lower(name), '{CURVE_SUFFIX}'))) AS '\\0'
"""
    source = ", ".join(f"any_value({field.name}) AS {field.name}" for field in SOURCE_FIELDS)
    metadata = ", any_value(metadata) AS metadata" if has_metadata else ""
    every = "".join(f", {sql} AS {name}" for name, sql in names.items())
    of_images = "".join(f", {sql} AS {name}" for name, sql in names.items() if name != "target_name")
    rows = [
        f"CREATE VIEW explanations AS SELECT *{every} {_EXPLAINED}",
        f"CREATE VIEW failures AS SELECT *{every} {_FAILED}",
    ]
    images = f"""
CREATE VIEW images AS SELECT *{of_images} FROM (
SELECT {run} shard, image_key, any_value(chunk) AS chunk, any_value(image_height) AS image_height,
  any_value(image_width) AS image_width, any_value(label) AS label, any_value(predicted) AS predicted,
  any_value(confidence) AS confidence, {correct} AS correct, count(map) AS maps,
  any_value(error_stage) AS error_stage, any_value(error_code) AS error_code, {source}{metadata}
FROM parts WHERE error_stage IS DISTINCT FROM '{SHARD_STAGE}' GROUP BY {run} shard, image_key)
"""  # noqa: S608 - constants only
    leaderboard = f"""
CREATE VIEW leaderboard AS
SELECT {run} method, target_rule, count(DISTINCT (shard, image_key)) AS images, avg(degenerate::INT) AS degenerate
  {means if scalar_metrics else ""}
{_EXPLAINED} GROUP BY {run} method, target_rule ORDER BY {run} method, target_rule
"""
    return (*rows, images, leaderboard)
