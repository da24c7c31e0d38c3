"""What can be taken away: the filter as SQL for `camatlas query`, its keys as CSV, and the images that were picked."""

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from starlette.responses import Response

from pipeline.viewer.filters import Filters
from pipeline.viewer.grid import common
from pipeline.viewer.rendering import page
from pipeline.viewer.selection import select, where_of
from pipeline.viewer.visit import NotFoundError, Visit
from schemas.key_file import KEY_COLUMN, SHARD_COLUMN, escaped

MOST_PICKED = 2000
_RIGHT = "(shard, image_key) IN (SELECT (shard, image_key) FROM images WHERE {}correct)"


def show_takeaway(visit: Visit) -> Response:
    """Render the filter as SQL, and the links to its keys."""
    return page(
        "takeaway.html",
        **common(visit),
        sql=as_sql(visit.filters, has_one_target=visit.index.has_one_target),
        total=len(visit.ids),
        csv=visit.link("/keys.csv"),
        back=visit.link("/"),
        address=str(visit.index.run.store.url),
    )


def keys_csv(visit: Visit) -> Response:
    """Return the shard and key of each image of the selection as CSV; text that is a formula gets an apostrophe."""
    table = select(visit.index, visit.filters, ["shard", "image_key"])
    pairs = dict.fromkeys(zip(*(table[name].to_pylist() for name in ("shard", "image_key")), strict=True))
    lines = csv_lines([(SHARD_COLUMN, KEY_COLUMN), *pairs])
    disposition = {"Content-Disposition": 'attachment; filename="keys.csv"'}
    return Response(lines.encode("utf-8", "replace"), media_type="text/csv; charset=utf-8", headers=disposition)


def show_picked(visit: Visit) -> Response:
    """Render the images that were picked, as a list for a run file, for SQL and for `camatlas show`."""
    picked = list(dict.fromkeys(value for name, value in visit.query if name == "pick"))[:MOST_PICKED]
    found = {f"{row[0]}/{row[1]}": row for row in _known(visit, picked)}
    if unknown := [name for name in picked if name not in found]:
        raise NotFoundError.one("pick", f"the run has no image '{unknown[0][:200]}'")
    pairs = [found[name] for name in picked]
    keys = [key for _, key in pairs]
    return page(
        "picked.html",
        **common(visit),
        keys=keys,
        yaml=as_yaml(pairs, _of_several_shards(visit, keys)),
        sql=f"SELECT * FROM explanations WHERE image_key IN ({', '.join(map(literal, keys))})",  # noqa: S608 - shown
        back=visit.link("/"),
    )


def as_sql(filters: Filters, *, has_one_target: bool = True) -> str:
    """Write filters as a SELECT for `camatlas query`, with the values in it."""
    where = where_of(filters, first="TRUE" if has_one_target else "place = 1", correct=_RIGHT)
    values = iter(where.parameters)
    conditions = [_filled(text, values) for text in where.conditions if text != "TRUE"]
    if filters.where.strip():
        conditions.append(f"(\n{filters.where.strip()}\n)")
    source = _NAMED if filters.where.strip() else "parts"
    if not has_one_target and not filters.target:
        source = f"(SELECT *, {_PLACE} AS place\n  FROM {source})"  # noqa: S608 - shown, and not run here
    return "\n".join(["SELECT DISTINCT shard, image_key", f"FROM {source}", "WHERE " + "\n  AND ".join(conditions)])


_PLACE = (
    "row_number() OVER (PARTITION BY shard, image_key, method\n    ORDER BY target_confidence DESC NULLS LAST, target)"
)
_NAMED = (
    "(SELECT every.*, images.correct\n"
    "  FROM (SELECT * FROM explanations UNION ALL BY NAME SELECT * FROM failures) AS every\n"
    "  JOIN images USING (shard, image_key))"
)
"""All rows with the columns that the user's own condition may name."""


_TOKEN = re.compile(r"""\"(?:[^\"]|\"\")*\"|\?""")


def _filled(text: str, values: Iterator[object]) -> str:
    """Replace each question mark outside of quoted names by the next value."""
    return _TOKEN.sub(lambda found: literal(next(values)) if found[0] == "?" else found[0], text)


def literal(value: object) -> str:
    """Write a value as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def as_yaml(pairs: Sequence[tuple[str, str]], ambiguous: Collection[str] = ()) -> str:
    """Write images, as pairs of shard and key, as `keys` of the section `data`; ambiguous keys with their shard."""
    lines = [
        f"    - {{shard: {_quoted(shard)}, image_key: {_quoted(key)}}}" if key in ambiguous else f"    - {_quoted(key)}"
        for shard, key in pairs
    ]
    return "  keys:\n" + "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    """Write a string of YAML: that of JSON, and with escapes for what YAML does not allow, or takes for a new line."""
    return "".join(
        f"\\u{ord(one):04x}" if _UNPRINTABLE.match(one) else one for one in json.dumps(text, ensure_ascii=False)
    )


_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def csv_lines(rows: Iterable[Sequence[str]]) -> str:
    """Write rows as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerows([escaped(cell) for cell in row] for row in rows)
    return file.getvalue()


def _known(visit: Visit, picked: Sequence[str]) -> list[tuple[str, str]]:
    query = (
        f"SELECT DISTINCT shard, image_key FROM {visit.index.table} "  # noqa: S608
        "WHERE shard || '/' || image_key IN (SELECT unnest(?::VARCHAR[]))"
    )
    table = visit.index.engine.sql(query, [list(picked)])
    return list(zip(table["shard"].to_pylist(), table["image_key"].to_pylist(), strict=True))


def _of_several_shards(visit: Visit, keys: Sequence[str]) -> set[str]:
    """Return the keys that images of more than one shard have."""
    query = (
        f"SELECT image_key FROM {visit.index.table} WHERE image_key IN (SELECT unnest(?::VARCHAR[])) "  # noqa: S608
        "GROUP BY image_key HAVING count(DISTINCT shard) > 1"
    )
    return set(visit.index.engine.sql(query, [list(keys)])["image_key"].to_pylist())
