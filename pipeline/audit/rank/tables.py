"""The tables of a ranking: runs, methods and metrics, as texts for the terminal and as flat rows for CSV."""

from typing import Any

from pipeline.audit.rank.draws import MeanRank
from pipeline.audit.rank.members import Member
from pipeline.audit.rank.ranking import Concordance, Method, Metric, Ranking
from pipeline.audit.tables import rounded
from pipeline.results.constant_maps import percent as percent_1
from pipeline.results.marks import percent

BEST, TIED = "★", "≈"
LEGEND = (
    "Mean ranks, 1 = best. {spread}95 %: bootstrap interval over the images. ★ best; ≈ these images cannot tell it "
    "from the best. W: Kendall's coefficient of concordance of the metrics without controls, 1 if they rank alike."
)
SPREAD = "In brackets, smallest and largest of the models; sd is their standard deviation. "

Texts = dict[str, str]


def run_rows(ranking: Ranking) -> list[Texts]:
    """Return one row for each run."""
    return [_run(member) for member in ranking.members]


def _run(member: Member) -> Texts:
    identity = member.manifest.identity
    return {
        "run": member.name, "model": member.model, "images": f"{len(member.values):,}", "targets": identity.targets,
        "precision": identity.precision, "state": member.state,
    }  # fmt: skip


def method_rows(ranking: Ranking) -> list[Texts]:
    """Return one row for each method, best first, and one with the agreement of the metrics."""
    return [*(_method(method, ranking) for method in ranking.methods), _agreement(ranking)]


def _method(method: Method, ranking: Ranking) -> Texts:
    first, *others = ranking.groups
    one = method.groups[first]
    row = {"method": method.name + " (control)" * method.is_control, first: _cell(one)}
    row["95 %"] = "" if one.low is None else f"{one.low:.1f}–{one.high:.1f}"
    if one.deviation is not None:
        row["sd"] = f"{one.deviation:.1f}"
    row |= {name: _cell(method.groups[name]) for name in others}
    if any(each.constant for each in ranking.methods):
        row["constant maps"] = percent_1(method.constant)
    return row


def _cell(one: MeanRank) -> str:
    mark = BEST if one.is_best else TIED if one.is_tied else " "
    spread = f" ({min(one.by_run):.1f}–{max(one.by_run):.1f})" if len(one.by_run) > 1 else ""
    return f"{mark} {one.value:.1f}{spread}"


def _agreement(ranking: Ranking) -> Texts:
    """Return the last row: Kendall's W of the metrics of each group."""
    columns = _method(ranking.methods[0], ranking)
    cells = {name: _concordance(one) for name, one in ranking.concordance.items()}
    return {"method": "W of the metrics"} | {name: cells.get(name, "") for name in columns if name != "method"}


def _concordance(one: Concordance) -> str:
    return "" if one.w is None else f"  {one.w:.2f} (chance {one.by_chance:.2f})"


def metric_rows(ranking: Ranking) -> list[Texts]:
    """Return one row for each metric, by family."""
    return [_metric(metric, ranking) for metric in ranking.metrics]


def _metric(metric: Metric, ranking: Ranking) -> Texts:
    known = metric.known
    shares = [percent(share) for share in known.pairs().values() if share is not None]
    best = [method.name for method in ranking.methods if method.metrics[metric.about.label].is_best]
    row = {
        "metric": metric.about.label, "family": metric.about.family, "better": metric.about.better,
        "can rank methods": "yes" if known.carries() else f"no: {known.faults()[0].short}",
        "pairs right (mass, rank)": ", ".join(shares), "images": ", ".join(_same(f"{one:,}" for one in metric.images)),
    }  # fmt: skip
    if len(ranking.members) > 1:
        row["W of the models"] = "" if metric.over_runs.w is None else f"{metric.over_runs.w:.2f}"
    return row | {"best": "all alike" if len(best) == len(ranking.methods) else ", ".join(best)}


def flat_rows(ranking: Ranking) -> list[dict[str, Any]]:
    """Return one row for each method, with the mean rank of each group and metric in columns of their own."""
    return [rounded(_flat(method)) for method in ranking.methods]


def _flat(method: Method) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method.name, "is_control": method.is_control, "constant_maps": method.constant}
    for name, one in method.groups.items():
        column = name.replace(" ", "_")
        row |= {column: one.value, f"{column}_low": one.low, f"{column}_high": one.high}
        row |= {f"{column}_tied": one.is_best or one.is_tied, f"{column}_deviation": one.deviation}
        row |= {f"{column}_smallest": min(one.by_run), f"{column}_largest": max(one.by_run)}
    return row | {f"by_{label}": one.value for label, one in method.metrics.items()}


def legend(ranking: Ranking) -> str:
    """Explain the table of the methods."""
    return LEGEND.format(spread=SPREAD if len(ranking.members) > 1 else "")


def headline(ranking: Ranking) -> str:
    """Say what is ranked, by what, and on what."""
    runs, metrics = len(ranking.members), len(ranking.metrics)
    models = len({member.weights for member in ranking.members})
    over = f"{runs} run{'s' if runs > 1 else ''} of {models} model{'s' if models > 1 else ''}"
    return f"{len(ranking.methods)} methods ranked by {metrics} metric{'s' if metrics > 1 else ''}, over {over}"


def _same(texts: Any) -> list[str]:  # noqa: ANN401 - any iterable of texts
    """Return the texts, or one of them if they are all the same."""
    found = list(texts)
    return found[:1] if len(set(found)) == 1 else found
