"""camatlas audit: write an HTML report on a run, with its numbers as JSON and its long tables as CSV."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.support.console import command, err, leave_after, out
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.audit.facts import Audited
    from schemas.judged import JudgedRecord


class Gallery(StrEnum):
    """Size of the report's gallery."""

    normal = "normal"
    large = "large"


BUDGETS = {Gallery.normal: 3_000_000, Gallery.large: 8_000_000}
"""Maximum size of the page in bytes, for any size of the dataset."""


@command
def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    output: Annotated[str | None, typer.Option("--out", help="folder for the report (default: RUN/_audit)")] = None,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="RUN2", help="compare with another run: image by image, or the drift"),
    ] = None,
    gallery: Annotated[
        Gallery, typer.Option("--gallery", help="images per group: normal keeps the page below 3 MB, large below 8 MB")
    ] = Gallery.normal,
    no_model: Annotated[bool, typer.Option("--no-model", help="do not run the model; skips interventions")] = False,
    no_images: Annotated[bool, typer.Option("--no-images", help="leave the images out of the report")] = False,
    judged: Annotated[
        str | None, typer.Option("--judged", metavar="FILE", help="record of `camatlas judge` to believe metrics by")
    ] = None,
    redact_keys: Annotated[
        str | None, typer.Option("--redact-keys", metavar="FILE", help="hash image keys, with FILE as the secret")
    ] = None,
) -> int:
    """Write report.html, audit.json and tables/*.csv; print the path of the report, and on stderr its findings."""
    from pipeline.audit.privacy import redacted, without_pictures
    from pipeline.results.reliability import load_record

    if output is None and "://" in run:
        raise ConfigError.one("--out", f"a report on '{run}' needs a local folder", "give one with --out")
    if output is None:
        _refuse_links(Path(run, "_audit"))
    elif "://" not in run and Path(output).resolve() == Path(run).resolve():
        raise ConfigError.one(
            "--out", "the report must not lie among the parts of the run", f"for example {run}/_audit"
        )
    secret = None if redact_keys is None else _secret(redact_keys)
    record = None if judged is None else load_record(Path(judged), "--judged")
    audited = _audited(run, compare, gallery, ask_model=not no_model, judged=record)
    audited = without_pictures(audited) if no_images else audited
    audited = redacted(audited, secret) if secret is not None else audited
    out.say(_write(audited, Path(output or f"{run}/_audit"), BUDGETS[gallery]))
    for line in summary(audited.facts):
        err.say(line)
    return 0


def summary(facts: Mapping[str, Any]) -> list[str]:
    """Return a line for each finding, and one that counts what is undecided and what was not checked."""
    sentences = [*(finding["sentence"] for finding in facts["findings"]), *facts["more_findings"]]
    verdicts = [check["verdict"] for check in facts["checked"]]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in ("undecided", "not checked")]
    checks = f"of {len(verdicts)} checks, {' and '.join(counts)}; the report says why"
    return [*(f"finding: {sentence}" for sentence in sentences), *["no findings"] * (not sentences), checks]


def _refuse_links(folder: Path) -> None:
    """Raise ConfigError for links in the default folder: the report must not be written outside the run folder.

    A folder named with --out may hold links.
    """
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise ConfigError.one("--out", f"'{path}' is a link; links in a run folder are not followed", "remove it")


def write_report(run: str, folder: Path) -> str:
    """Audit a run and write the report; return the path of the page."""
    return _write(_audited(run, None, Gallery.normal, ask_model=True), folder, BUDGETS[Gallery.normal])


def _audited(
    run: str, compare: str | None, gallery: Gallery, *, ask_model: bool, judged: "JudgedRecord | None" = None
) -> "Audited":
    from pipeline.audit.facts import audit as audit_run
    from pipeline.results.query import open_run

    with (
        TemporaryDirectory(prefix="camatlas-audit-") as scratch,
        open_run(run, f"{scratch}/run") as opened,
        nullcontext() if compare is None else open_run(compare, f"{scratch}/compared") as other,
    ):
        audited = audit_run(opened, other, gallery=gallery, ask_model=ask_model, judged=judged)
    for sentence in audited.facts["unchecked"]:
        err.say(f"not checked: {sentence}")
    return audited


def _secret(path: str) -> bytes:
    from pipeline.audit.privacy import check_secret

    try:
        secret = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError.one("--redact-keys", f"cannot read '{path}': {error.strerror or error}") from None
    check_secret(secret)
    return secret


def _write(audited: "Audited", folder: Path, budget: int) -> str:
    from pipeline.audit.page import fitted

    facts, html = fitted(audited, budget)
    page = folder / "report.html"
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        content = html.encode("utf-8", "backslashreplace")  # paths need not be UTF-8
        page.write_bytes(content)
        digest = {"file": page.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        facts_text = json.dumps({"report": digest, **facts}, indent=1, ensure_ascii=False)
        (folder / "audit.json").write_text(facts_text, encoding="utf-8", errors="backslashreplace")
        for name, rows in _tables(facts).items():
            _write_csv(rows, folder / "tables" / f"{name}.csv")
    except OSError as error:
        raise ConfigError.one("--out", f"cannot write to '{folder}': {error.strerror or error}") from None
    return str(page)


def _tables(facts: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of the page for CSV files; cells with nested values are left out."""
    tables = {
        "classes": facts["classes"]["rows"],
        "leaderboard": facts["leaderboard"]["rows"],
        "confusions": facts["accuracy"]["confusions"]["rows"],
        "failures": facts["failures"]["rows"],
        "shards": facts["shards"]["worst"]["rows"],
        "agreement": facts["agreement"]["rows"],
        "findings": facts["findings"],
        **({"slices": _measures(facts["slices"]["slices"])} if "slices" in facts else {}),
        **({"drift": facts["drift"]["rows"]} if facts.get("drift") else {}),
        **_tables_of_outputs(facts.get("outputs", {})),
    }
    return {
        name: [{key: value for key, value in row.items() if not isinstance(value, (dict, list))} for row in rows]
        for name, rows in tables.items()
    }


def _measures(slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each slice and measure."""
    return [
        {**one, **measured}
        for one in slices
        for measured in (
            *({"measure": name, **found} for name, found in one["model"].items() if found),
            *one["metrics"],
        )
    ]


def _tables_of_outputs(outputs: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of the chapter on the model's outputs."""
    tables = {"thresholds": ("binary", "thresholds"), "labels": ("multilabel", "labels")}
    return {name: outputs[chapter][rows] for name, (chapter, rows) in tables.items() if chapter in outputs}


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa

    from jobs.support.answers import write_csv

    with path.open("w", newline="", encoding="utf-8") as file:
        write_csv(pa.Table.from_pylist(rows), file)


if __name__ == "__main__":
    leave_after(lambda: typer.run(audit))
