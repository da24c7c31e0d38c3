"""Renders a record as Markdown: docs/metrics.md, and the short table of docs/which-number.md.

`python -m pipeline.judge.table` writes both from the record that comes with the package.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.metrics import METRICS
from pipeline.results.marks import NOT_TRIED, STATED_RELIABILITY, percent
from pipeline.results.reliability import Reliability, reliability, shipped_record
from schemas.judged import Agreement, Agreements, FreeGain, JudgedRecord, MetricRecord, Score

BEGIN, END = "<!-- begin: made from the record -->", "<!-- end: made from the record -->"
"""Comments around the part of docs/which-number.md that is rendered."""

_PLACEHOLDER = "**These numbers are a first look on few scenes, to be replaced by those of the whole set.**"

_INTRO = """\
Scenes are drawn from parts, so that a part is taken out by drawing the scene without it. The truth is what each part is
worth to the network: its exact Shapley value over all subsets of the parts. Two numbers compare a map with the truth:
`mass`, the overlap of the map's values with the shares of the parts, and `rank`, the order of the parts by their mean
value. A metric is believed as far as it orders maps as these two do. `camatlas judge` measures it and writes a record;
this page is made from the record that comes with camatlas, and no number on it is typed by hand."""

_AGREEMENT = """\
Kendall's tau-b between metric and truth, over the methods and over graded ruins of the true map: mean over scenes, with
its 95 % bootstrap interval. Of the pairs of methods, (1 + tau) / 2 are ordered as the truth does; tau is 0 for a metric
that knows nothing. A metric can carry a conclusion about methods if both intervals over the methods begin at
{agreement} or higher, and the truth beats {ruins} in {order} of the scenes or more."""

_ORDER = "Share of scenes on which the metric prefers the true map to each ruin of it; ties count half."

_GAINS = """\
Share of scenes on which a change that adds no knowledge is rewarded, and in brackets the mean gain in standard
deviations of the metric over the methods. Size: Spearman correlation with the area of random maps. Alpha:
Krippendorff's alpha of the ranking of the methods. Scenes: how many are needed for an interval of the mean rank below
half a place."""

_METHODS = "How well each method finds the truth: mean over scenes, with its 95 % interval where it is known."

_NETWORKS = "Tau over the methods with `mass` and with `rank`, on each network alone."


def metrics_page(record: JudgedRecord) -> str:
    """Render docs/metrics.md."""
    notice = [_PLACEHOLDER] if record.is_placeholder else []
    parts = [
        "# How far each metric can be believed",
        *notice,
        _INTRO,
        _scenes(record),
        *("## Agreement with the truth", _stated(_AGREEMENT), _agreement(record)),
        *("## Ruins of the true map", _ORDER, _order(record)),
        *("## Gains without knowledge", _GAINS, _gains(record)),
        *("## What must be said of each metric", _marks(record)),
        *("## Methods", _METHODS, _methods(record)),
        *("## Networks", _NETWORKS, _networks(record)),
    ]
    return "\n\n".join(parts) + "\n"


def short_table(record: JudgedRecord) -> str:
    """Render the table of docs/which-number.md: whether each judged metric can rank methods, best first."""
    known = {
        name: _known(record, name)
        for name, judged in record.metrics.items()
        if judged.better != "neither" and judged.needs != "parts"  # those of parts are the truth themselves
    }
    names = sorted(known, key=lambda name: (_ANSWERS.index(_answer(known[name])), name))
    rows = [[f"`{name}`", _answer(known[name]), *_pairs(known[name]), _short_marks(known[name])] for name in names]
    notice = [_PLACEHOLDER, ""] if record.is_placeholder else []
    header = ["metric", "can rank methods", "pairs right (mass)", "pairs right (rank)", "beware"]
    return "\n".join([*notice, _table(header, rows)])


_ANSWERS = ("yes", "not known", "no")


def _answer(known: Reliability) -> str:
    """Say whether a metric can rank methods; not known if its only fault is that wrong maps could not be tried."""
    faults = {fault.short for fault in known.faults()}
    return "yes" if not faults else "not known" if faults == {NOT_TRIED} else "no"


def with_short_table(document: str, record: JudgedRecord) -> str:
    """Replace what stands between the two comments of a document by the short table."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{short_table(record)}\n{END}{after}"


def write_documents(record: JudgedRecord, folder: Path) -> None:
    """Write docs/metrics.md, and the short table into docs/which-number.md."""
    (folder / "metrics.md").write_text(metrics_page(record), encoding="utf-8")
    guide = folder / "which-number.md"
    guide.write_text(with_short_table(guide.read_text(encoding="utf-8"), record), encoding="utf-8")


def _stated(text: str) -> str:
    stated = STATED_RELIABILITY
    *first, last = [ruin.replace("_", " ") for ruin in stated.ruins]
    ruins = f"{', '.join(first)} and {last} maps"
    return text.format(agreement=stated.agreement, order=percent(stated.order), ruins=ruins)


def _scenes(record: JudgedRecord) -> str:
    rules = ", ".join(f"{name} {count}" for name, count in record.rules.items())
    lines = [
        f"Measured on {record.scenes} scenes, seed {record.seed}" + (f", by rule: {rules}." if rules else "."),
        "",
        _table(
            ["network", "scenes", "accuracy", "share of value on the parts of the class"],
            [[n, str(net.scenes), _number(net.accuracy), _number(net.own_share)] for n, net in record.networks.items()],
        ),
    ]
    return "\n".join(lines)


def _agreement(record: JudgedRecord) -> str:
    header = ["metric", "needs", "methods: mass", "methods: rank", "ruins: mass", "ruins: rank", "carries a conclusion"]
    rows = []
    for name, judged in record.metrics.items():
        over = [*_taus(judged.agreement.methods), *_taus(judged.agreement.ruins)]
        rows.append([f"`{name}`", judged.needs, *over, _verdict(_known(record, name))])
    return _table(header, rows)


def _order(record: JudgedRecord) -> str:
    named = [name for judged in record.metrics.values() for name in judged.order]
    ruins = [name for name in dict.fromkeys([*record.candidates.ruins, *named]) if name in named]
    rows = [[f"`{name}`", *(_number(one.order.get(ruin)) for ruin in ruins)] for name, one in record.metrics.items()]
    return _table(["metric", *(ruin.replace("_", " ") for ruin in ruins)], rows)


def _gains(record: JudgedRecord) -> str:
    changes = record.candidates.changes
    header = ["metric", *(change.replace("_", " ") for change in changes), "size", "alpha", "scenes"]
    return _table(header, [_gains_row(name, judged, changes) for name, judged in record.metrics.items()])


def _gains_row(name: str, judged: MetricRecord, changes: Sequence[str]) -> list[str]:
    size, repeated = judged.size, judged.repeatability
    needed = "none" if repeated is None or repeated.scenes_needed is None else str(repeated.scenes_needed)
    return [
        f"`{name}`",
        *(_gain(judged.free_gains.get(change)) for change in changes),
        "none" if size is None else _estimate(size.rho, size.low, size.high),
        "none" if repeated is None else _number(repeated.alpha),
        needed,
    ]


def _marks(record: JudgedRecord) -> str:
    lines = []
    for name, judged in record.metrics.items():
        used = ", ".join(f"{parameter} {value}" for parameter, value in judged.params.items() if parameter != "name")
        lines.append(f"* `{name}`" + (f" ({used})" if used else "") + f": {_known(record, name).line()}.")
    return "\n".join([*lines, *_unjudged(record)])


def _unjudged(record: JudgedRecord) -> list[str]:
    names = [f"`{name}`" for name in METRICS if name not in record.metrics]
    return [f"* {', '.join(names)}: not judged."] if names else []


def _methods(record: JudgedRecord) -> str:
    ordered = sorted(record.methods.items(), key=lambda item: (-_mean(item[1].mass), item[0]))
    rows = [[f"`{name}`", _score(one.mass), _score(one.rank)] for name, one in ordered]
    return _table(["method", "mass", "rank"], rows)


def _networks(record: JudgedRecord) -> str:
    header = ["metric", *(f"{network}: {truth}" for network in record.networks for truth in ("mass", "rank"))]
    rows = [
        [f"`{name}`", *(cell for network in record.networks for cell in _taus(judged.by_network.get(network)))]
        for name, judged in record.metrics.items()
    ]
    return _table(header, rows)


def _known(record: JudgedRecord, name: str) -> Reliability:
    return reliability(record, name, record.metrics[name].better)


def _verdict(known: Reliability) -> str:
    return "yes" if known.carries() else "no" if known.ranks else "describes only"


def _pairs(known: Reliability) -> list[str]:
    return ["none" if share is None else percent(share) for share in known.pairs().values()]


def _short_marks(known: Reliability) -> str:
    return "; ".join(mark.short for mark in (*known.faults(), *known.preferences())) or "nothing found"


def _taus(agreements: Agreements | None) -> list[str]:
    pair: tuple[Agreement | None, ...] = (None, None) if agreements is None else (agreements.mass, agreements.rank)
    return ["none" if one is None else _estimate(one.tau, one.low, one.high) for one in pair]


def _score(score: Score | None) -> str:
    return "none" if score is None else _estimate(score.mean, score.low, score.high)


def _mean(score: Score | None) -> float:
    return -1.0 if score is None or score.mean is None else score.mean


def _gain(gain: FreeGain | None) -> str:
    if gain is None or gain.rewarded is None:
        return "none"
    return _number(gain.rewarded) + ("" if gain.gain is None else f" ({_number(gain.gain)})")


def _estimate(value: float | None, low: float | None, high: float | None) -> str:
    return _number(value) + ("" if low is None or high is None else f" ({_number(low)} to {_number(high)})")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    write_documents(shipped_record(), Path(__file__).resolve().parents[2] / "docs")
