"""The SQL of the views and of `map_values`: constant, but for names of our own; no word of the data goes into it."""

from collections.abc import Sequence

from schemas.explanation import CURVE_SUFFIX, ERROR_FIELDS, IDENTITY_FIELDS, MAP_FIELDS, SHARD_STAGE

VIEWS = ("explanations", "images", "failures", "leaderboard", "sanity")
RUN_COLUMNS = ("run", "model", "dataset")
"""What an atlas puts before the columns of a run."""

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
"""Decode a map in SQL to a list of its values, row by row, the same as `pipeline.maps.codec.decode` to the last bit."""

_OF_A_RUN = tuple(field.name for field in (*IDENTITY_FIELDS, *MAP_FIELDS, *ERROR_FIELDS))
_EXPLANATIONS = "CREATE VIEW explanations AS SELECT * FROM parts WHERE method IS NOT NULL AND error_code IS NULL"
_FAILURES = "CREATE VIEW failures AS SELECT * FROM parts WHERE error_code IS NOT NULL"


def view_statements(*, numbers: bool, of_run: Sequence[str] = ()) -> tuple[str, ...]:
    """Give what makes the views on `parts`.

    Args:
        numbers: whether any metric is a number, of which the leaderboard gives the mean.
        of_run: columns of `parts` that tell apart the runs of an atlas.
    """
    run = "".join(f"{name}, " for name in of_run)
    fixed = ", ".join(f"'{name}'" for name in (*of_run, *_OF_A_RUN))
    means = f"""
, avg(COLUMNS(lambda name: name NOT IN ({fixed}) AND NOT ends_with(lower(name), '{CURVE_SUFFIX}'))) AS '\\0'
"""
    images = f"""
CREATE VIEW images AS
SELECT {run} shard, image_key, any_value(chunk) AS chunk, any_value(image_height) AS image_height,
  any_value(image_width) AS image_width, any_value(label) AS label, any_value(predicted) AS predicted,
  any_value(confidence) AS confidence, any_value(predicted = label) AS correct, count(map) AS maps,
  any_value(error_stage) AS error_stage, any_value(error_code) AS error_code
FROM parts WHERE error_stage IS DISTINCT FROM '{SHARD_STAGE}' GROUP BY {run} shard, image_key
"""  # noqa: S608 - constants only
    leaderboard = f"""
CREATE VIEW leaderboard AS
SELECT {run} method, target_rule, count(DISTINCT (shard, image_key)) AS images, avg(degenerate::INT) AS degenerate
  {means if numbers else ""}
FROM explanations GROUP BY {run} method, target_rule ORDER BY {run} method, target_rule
"""  # noqa: S608 - constants only
    return (_EXPLANATIONS, _FAILURES, images, leaderboard)
