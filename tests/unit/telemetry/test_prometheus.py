"""The counters of an actor: what events add to them, and that Ray's counters accept it."""

from collections import Counter as Sums

import pytest

from pipeline.telemetry import prometheus
from pipeline.telemetry.events import Committed, Heartbeat, Usage
from pipeline.telemetry.prometheus import Counters

EVENTS = (
    Heartbeat(3),
    Heartbeat(5),
    Committed(0, 0, 8, 1000, {"label": 2, "nonfinite": 1}, True, waiting=1,
              usage=Usage({"explain": 3.0, "wait": 1.0, "read": 0.5, "held_up": 0.0}, {"forward": 90, "head": 0})),
    Committed(0, 1, 8, 1000, {}, False, usage=Usage({"explain": 1.0}, {"forward": 10})),
)  # fmt: skip
Key = tuple[tuple[str, str], ...]


class Recorded:
    """A counter or gauge that records values, and rejects what Ray's rejects."""

    made: "dict[str, Recorded]"

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.tag_keys, self.values = set(tag_keys), Sums[Key]()
        Recorded.made[name] = self

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0
        self._check(tags)
        self.values[tuple(sorted(tags.items()))] += value  # type: ignore[assignment]

    def set(self, value: float, tags: dict[str, str]) -> None:
        self._check(tags)
        self.values[tuple(sorted(tags.items()))] = value  # type: ignore[assignment]

    def _check(self, tags: dict[str, str]) -> None:
        assert set(tags) == self.tag_keys


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorded]:
    Recorded.made = {}
    monkeypatch.setattr(prometheus, "Counter", Recorded)
    monkeypatch.setattr(prometheus, "Gauge", Recorded)
    Counters("r1").note(EVENTS)
    return Recorded.made


def values(recorded: Recorded, tag: str = "") -> dict[str, float]:
    assert all(dict(key)["run_id"] == "r1" for key in recorded.values)
    return {dict(key).get(tag, ""): value for key, value in recorded.values.items()}


def test_events_are_counted(recorded: dict[str, Recorded]) -> None:
    assert values(recorded["camatlas_images"]) == {"": 8}
    assert values(recorded["camatlas_chunks"]) == {"": 2}
    assert values(recorded["camatlas_failures"], "code") == {"label": 2, "nonfinite": 1}
    assert values(recorded["camatlas_forwards"], "kind") == {"forward": 100}
    assert values(recorded["camatlas_busy_seconds"], "stage") == {"explain": 4, "wait": 1, "read": 0.5}
    assert values(recorded["camatlas_queue"]) == {"": 0}
    assert values(recorded["camatlas_busy_share"]) == {"": 1}


def test_the_counters_of_ray_accept_events_without_a_collector() -> None:
    Counters("r1").note(EVENTS)
    Counters("r1").note(EVENTS)
