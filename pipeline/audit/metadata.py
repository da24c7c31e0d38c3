"""Metadata section: accuracy by the values of further columns of the images."""

from pipeline.audit.statistics import wilson
from pipeline.audit.tables import Table, query_table
from pipeline.results.query import Run

MAX_VALUES = 50
"""Most rows of the table; a column of free text has too many values to compare."""
_METADATA = """
SELECT entry.key AS name, entry.value AS value, count(*) AS images, count(*) FILTER (maps > 0) AS explained,
  count(correct) AS judged, avg(correct::INT) AS accuracy, avg(confidence) AS mean_confidence
FROM (SELECT *, unnest(map_entries(metadata)) AS entry FROM images)
GROUP BY name, value ORDER BY name, images DESC, value LIMIT 51
"""


def metadata(run: Run) -> Table:
    """Compute the accuracy of the images with each value, of a run that has metadata."""
    table = query_table(run, _METADATA)
    for row in table["rows"]:
        row["low"], row["high"] = wilson(round((row["accuracy"] or 0) * row["judged"]), row["judged"])
    return table | {"rows": table["rows"][:MAX_VALUES], "more": len(table["rows"]) > MAX_VALUES}
