"""The user's own condition in SQL: one expression, of functions whose time and memory are bounded by their input.

DuckDB stops a query between batches of rows, but not within one call: a list of a billion numbers, made in one cell,
would outlast any time limit and any limit on memory. So a condition may call only the functions named here.
"""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from pipeline.errors import ConfigError, Mistake, nearest
from pipeline.viewer.engine import Engine, translated_errors

_NAMES = (
    "abs acos any_value arg_max arg_min asin atan atan2 avg bool_and bool_or cbrt ceil ceiling coalesce concat "
    "contains corr cos count count_star covar_pop date_part day degrees dense_rank element_at ends_with epoch exp "
    "extract first first_value floor greatest hash hour ifnull ilike_escape isfinite isinf isnan "
    "jaro_winkler_similarity last last_value least left length like_escape lcase len list_contains list_value ln "
    "log log10 log2 lower ltrim mad map_contains map_extract max mean median min minute mod mode month "
    "not_ilike_escape not_like_escape now nullif ntile percent_rank pi pow power prefix quantile quantile_cont "
    "quantile_disc radians rank regexp_extract regexp_full_match regexp_matches reverse right round row "
    "row_number rtrim sign sin split_part sqrt starts_with stddev stddev_pop stddev_samp strlen strpos strptime "
    "substr substring suffix sum tan trim trunc typeof ucase upper var_pop var_samp variance year array_extract "
    "list_extract struct_extract array_slice list_slice cume_dist lag lead nth_value "
)
FUNCTIONS = frozenset(_NAMES.split())
_LONGEST = 10_000
_ELSEWHERE = "`camatlas query` runs any SELECT"


def checked(engine: Engine, text: str) -> duckdb.Expression:
    """Parse the user's condition.

    Raises:
        ConfigError: it is no expression, more than one, or calls a function that is not offered here.
    """
    if len(text) > _LONGEST:
        raise ConfigError.one("WHERE", f"is longer than {_LONGEST:,} characters", _ELSEWHERE)
    with translated_errors(engine.seconds):
        expression = duckdb.SQLExpression(text)
    if mistakes := list(_refused(engine, text)):
        raise ConfigError(dict.fromkeys(mistakes))
    return expression


def _refused(engine: Engine, text: str) -> Iterator[Mistake]:
    tree = engine.sql("SELECT json_serialize_sql(?) AS tree", ["SELECT " + text])["tree"][0].as_py()
    try:
        nodes = list(_nodes(json.loads(tree)))
    except RecursionError:
        yield Mistake("WHERE", "is nested too deeply", _ELSEWHERE)
        return
    for node in nodes:
        name = node.get("function_name")
        if name is not None and not node.get("is_operator") and name not in FUNCTIONS:
            hint = nearest(name, FUNCTIONS)
            yield Mistake("WHERE", f"the function {name} is not offered here", hint or _ELSEWHERE)
        if (node.get("cte_map") or {}).get("map"):
            yield Mistake("WHERE", "WITH is not offered here", _ELSEWHERE)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Yield every object of a tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
