"""camatlas rank: mean ranks of methods over models and metrics, and how far metrics agree."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.methods import print_rows
from jobs.support.answers import AsCsv, write_csv
from jobs.support.console import command, err, leave_after, out
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.audit.rank.ranking import Ranking

SUFFIXES = (".svg", ".png")


@command
def rank(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="the run folders, for example one per model")],
    methods: Annotated[str, typer.Option(help="methods to compare, separated by commas (default: all shared)")] = "",
    metrics: Annotated[str, typer.Option(help="metrics to rank by, separated by commas (default: all shared)")] = "",
    judged: Annotated[
        str | None, typer.Option("--judged", metavar="FILE", help="record of `camatlas judge` to believe metrics by")
    ] = None,
    as_csv: AsCsv = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    output: Annotated[str | None, typer.Option("--out", help="also draw a picture: a .svg or .png file")] = None,
) -> int:
    """Rank the methods of finished runs by every metric they share: mean ranks, their spread, and agreement."""
    from pipeline.audit.rank.ranking import rank as rank_methods
    from pipeline.results.reliability import load_record

    if as_csv and as_json:
        raise ConfigError.one("--csv, --json", "only one of them can be used at a time")
    if output is not None and Path(output).suffix not in SUFFIXES:
        raise ConfigError.one("--out", f"'{output}' has an unknown suffix", f"use {' or '.join(SUFFIXES)}")
    record = None if judged is None else load_record(Path(judged), "--judged")
    ranking = rank_methods(runs, _names(methods), _names(metrics), record)
    _print(ranking, as_csv=as_csv, as_json=as_json)
    if output is not None:
        _draw(ranking, Path(output))
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _print(ranking: "Ranking", *, as_csv: bool, as_json: bool) -> None:
    """Print the ranking; CSV has no room for the notes, which then go to stderr."""
    if as_json:
        out.say(json.dumps(ranking.to_json(), ensure_ascii=False, allow_nan=False))
    elif as_csv:
        for note in ranking.notes:
            err.say(f"note: {note}")
        _print_csv(ranking)
    else:
        _print_report(ranking)


def _print_csv(ranking: "Ranking") -> None:
    import pyarrow as pa

    from pipeline.audit.rank.tables import flat_rows

    write_csv(pa.Table.from_pylist(flat_rows(ranking)), sys.stdout)


def _print_report(ranking: "Ranking") -> None:
    from pipeline.audit.rank import tables

    out.say(f"{tables.headline(ranking)}\n")
    print_rows(tables.run_rows(ranking))
    for note in ranking.notes:
        out.say(f"note: {note}")
    out.say("")
    print_rows(tables.method_rows(ranking))
    out.say(f"\n{tables.legend(ranking)}\n")
    print_rows(tables.metric_rows(ranking))
    out.say("")
    for sentence in ranking.conclusions:
        out.say(f"* {sentence}")


def _draw(ranking: "Ranking", path: Path) -> None:
    from pipeline.audit.rank.picture import picture

    try:
        path.write_bytes(picture(ranking, path.suffix))
    except OSError as error:
        raise ConfigError.one("--out", f"cannot write '{path}': {error.strerror or error}") from None
    err.say(f"picture: {path}")


if __name__ == "__main__":
    leave_after(lambda: typer.run(rank))
