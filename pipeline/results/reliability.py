"""How far each metric can be believed: what follows from the measurements of `camatlas judge` on exact truth.

The record holds measurements alone. Whether a metric can carry a conclusion, and what it prefers, is derived from them
whenever it is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import ConfigError, reason
from pipeline.results.marks import Mark, by_truth, confusions, disagreement, pairs_right, percent, preferences
from schemas.judged import VERSION, JudgedRecord, MetricRecord


@dataclass(frozen=True)
class Reliability:
    """What is known of one metric.

    Attributes:
        judged: the measurements; None if the metric was not judged.
        other_parameters: how the parameters in use differ from those judged; empty if they do not.
        ranks: whether a value of the metric can be better than another one.
    """

    judged: MetricRecord | None
    other_parameters: str = ""
    ranks: bool = True

    @property
    def is_known(self) -> bool:
        """Return whether the measurements are about this metric with these parameters."""
        return self.judged is not None and not self.other_parameters

    def carries(self) -> bool:
        """Tell whether the metric can carry a conclusion about methods."""
        return not self.faults()

    def marks(self) -> list[str]:
        """Return what a reader must know: first why the metric carries no conclusion, then what it prefers."""
        return [mark.text for mark in (*self.faults(), *self.preferences())]

    def faults(self) -> list[Mark]:
        """Return the reasons why the metric cannot carry a conclusion about methods; none if it can."""
        if not self.ranks:
            return [Mark("describes only", "describes the map or the model: no value is better than another")]
        if self.judged is None:
            return [Mark("not judged", "not judged")]
        if self.other_parameters:
            text = f"judged with other parameters: {self.other_parameters}"
            return [Mark("judged with other parameters", text)]
        return [*disagreement(self.judged.agreement.methods), *confusions(self.judged.order)]

    def preferences(self) -> list[Mark]:
        """Return what the metric rewards without knowledge, and how many images its ranking needs."""
        if self.judged is None or not self.is_known or not self.ranks:
            return []
        return list(preferences(self.judged))

    def pairs(self) -> dict[str, float | None]:
        """Return the share of pairs of methods that the metric orders as each truth does."""
        over = self.judged.agreement.methods if self.judged is not None and self.is_known and self.ranks else None
        return {name: pairs_right(agreement) for name, agreement in by_truth(over)}

    def line(self) -> str:
        """Format all of it as one line: the numbers, whether they suffice, and the marks."""
        shares = [f"{percent(share)} ({name})" for name, share in self.pairs().items() if share is not None]
        parts = [f"orders {' and '.join(shares)} of the pairs of methods as the truth does"] * bool(shares)
        if self.ranks and self.is_known:
            parts.append(f"{'can' if self.carries() else 'cannot'} carry a conclusion about methods")
        return "; ".join([*parts, *self.marks()])


def reliability(
    record: JudgedRecord, name: str, better: str, parameters: Mapping[str, Any] | None = None
) -> Reliability:
    """Look up a metric in a record.

    Args:
        record: the measurements.
        name: name of the metric in the registry, whatever it is called in a run.
        better: the direction that is better, or "neither".
        parameters: the parameters in use, to be compared with those judged; None to take those judged.
    """
    judged = record.metrics.get(name)
    if judged is None or parameters is None:
        return Reliability(judged, ranks=better != "neither")
    return Reliability(judged, differing(judged.params, parameters), better != "neither")


def differing(judged: Mapping[str, Any], used: Mapping[str, Any]) -> str:
    """List the parameters that differ, as judged and as used; empty if none does."""
    left, right = (
        {name: value for name, value in _plain(side).items() if name not in _NO_PARAMETERS} for side in (judged, used)
    )
    names = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    return ", ".join(f"{name} {_shown(left.get(name))}, here {_shown(right.get(name))}" for name in names)


_NO_PARAMETERS = ("name", "noise")
"""Fields of a method or metric in a manifest that change no measurement: numbers of every generator are alike."""


@cache
def shipped_record() -> JudgedRecord:
    """Return the record that comes with the package."""
    return parse_record((files("pipeline.results") / "judged.json").read_bytes(), "judged.json")


def load_record(path: Path, where: str) -> JudgedRecord:
    """Read a record from a file; `where` names the option in messages.

    Raises:
        ConfigError: the file cannot be read, or is not a record of this version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError.one(where, f"cannot read '{path}': {reason(error)}") from None
    return parse_record(content, where, f"'{path}'")


def parse_record(content: bytes, where: str, name: str = "the file") -> JudgedRecord:
    """Parse a record.

    Raises:
        ConfigError: it is not JSON, of another version, or fields are missing or wrong.
    """
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError.one(where, f"{name} is not JSON: {error}", "write it with `camatlas judge`") from None
    if not isinstance(fields, dict) or "metrics" not in fields:
        raise ConfigError.one(where, f"{name} is not a record of `camatlas judge`")
    if fields.get("version") != VERSION:
        raise ConfigError.one(
            where, f"{name} has version {fields.get('version')!r}, and this camatlas reads version {VERSION}",
            "write it again with `camatlas judge`",
        )  # fmt: skip
    try:
        return JudgedRecord.model_validate(fields)
    except ValidationError as error:
        places = dict.fromkeys(".".join(map(str, problem["loc"])) for problem in error.errors())
        shown = ", ".join(list(places)[:5]) + (f" and {len(places) - 5} more" if len(places) > 5 else "")
        what = f"{name} is damaged: fields are missing or wrong: {shown}"
        raise ConfigError.one(where, what, "write it again with `camatlas judge`") from None


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON gives them back, so that tuples equal lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(fields), default=str))
    return plain


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def leaderboard_note(metrics: Mapping[str, Mapping[str, Any]], record: JudgedRecord) -> str:
    """Name the metrics of a run that cannot carry a conclusion about methods, each with the reason; empty if all can.

    Args:
        metrics: the parameters of each metric of the run, with its name in the registry, by its name in the run.
        record: the measurements.
    """
    known = {
        label: reliability(record, str(fields["name"]), _direction(record, fields), fields)
        for label, fields in metrics.items()
    }
    weak = [f"{label} ({one.faults()[0].short})" for label, one in known.items() if one.ranks and one.faults()]
    if not weak:
        return ""
    return f"Not known to carry a conclusion about methods: {', '.join(weak)}; see `camatlas metrics NAME`."


def _direction(record: JudgedRecord, fields: Mapping[str, Any]) -> str:
    """Return the direction of a metric: as judged, or, of a plug-in, as the manifest holds it."""
    judged, plugin = record.metrics.get(str(fields["name"])), fields.get("plugin")
    if plugin is not None:
        return str(plugin["better"])
    return "higher" if judged is None else judged.better
