"""Events of a session become counts, warnings (text or JSON) and the field `session` of the end event."""

import json
from typing import Any

import pytest

from jobs.support.progress import Tally
from jobs.support.watch import Watch, session_fields
from pipeline.telemetry.bottleneck import STAGES, Environment, Session
from pipeline.telemetry.events import Committed, Heartbeat, Usage

SHARDS = ("a.tar", "b.tar")


def committed(worker: str = "w1", **fields: object) -> Committed:
    facts: dict[str, Any] = {"shard": 1, "chunk": 7, "images": 4, "encoded_bytes": 100, "failures": {}, "ours": True}
    return Committed(**{**facts, "worker": worker, **fields})


@pytest.fixture
def tally() -> Tally:
    return Tally(10, 1000)


def watch(tally: Tally, *, json_events: bool = True) -> Watch:
    return Watch(tally, Session(tally.clock), 1, SHARDS, json_events=json_events)


def test_events_are_counted_and_print_nothing(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    watching = watch(tally)
    for event in (Heartbeat(4), committed(failures={"label": 1}), committed(ours=False)):
        watching.note(event)
    assert (tally.images, tally.chunks, tally.committed_images, tally.committed_bytes) == (4, 1, 8, 200)
    assert tally.failures == {"label": 1}
    assert capsys.readouterr() == ("", "")


def warnings(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(event.pop("event") == "warning" and event.pop("time") for event in events)
    return events


def test_a_worker_that_was_replaced_is_a_warning(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    watching = watch(tally)
    for worker in ("w1", "w2", "w2"):
        watching.note(committed(worker))
    assert warnings(capsys) == [
        {
            "kind": "worker_replaced",
            "message": "a worker died and was replaced (1 so far); if this continues, check the memory of the workers",
            "worker": "w2",
        }
    ]


def test_low_values_of_16_bit_images_are_one_warning(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    watching = watch(tally)
    for depth in ({}, {"deep_images": 4, "deep_peak": 900}, {"deep_images": 4, "deep_peak": 1000}):
        watching.note(committed(**depth))
    (warning,) = warnings(capsys)
    assert (warning["kind"], warning["images"], warning["largest"]) == ("low_16_bit_values", 4, 900)
    assert "data.window" in warning["message"]


def test_no_warning_follows_a_16_bit_image_that_uses_its_range(
    tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = watch(tally)
    for peak in (4096, 900):
        watching.note(committed(deep_images=1, deep_peak=peak))
    assert warnings(capsys) == []


def test_isolated_attempts_and_lost_images_are_warnings_with_their_place(
    tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    watch(tally).note(committed(isolated=True, failures={"worker_died": 2}))
    isolated, poison = warnings(capsys)
    assert (isolated["kind"], isolated["shard"], isolated["chunk"]) == ("careful", "b.tar", 7)
    assert (poison["kind"], poison["images"]) == ("poison_image", 2)
    assert "2 images of chunk 7 of b.tar killed their worker in every attempt" in poison["message"]


def test_smaller_passes_are_a_warning(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    watching = watch(tally)
    watching.note(committed(usage=Usage(batch=8)))
    watching.note(committed())
    (warning,) = warnings(capsys)
    assert (warning["kind"], warning["worker"], warning["batch"]) == ("smaller_passes", "w1", 8)
    assert "passes now hold 8 images" in warning["message"]


def test_without_json_warnings_are_text(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    watch(tally, json_events=False).note(committed(isolated=True))
    assert capsys.readouterr().err == (
        "warning: an attempt at chunk 7 of b.tar ended early; its images were explained one by one\n"
    )


def test_session_fields_hold_the_stage_times() -> None:
    session = Session(lambda: 5.0)
    session.note(committed(usage=Usage({"explain": 2.0, "methods": 1.5, "read": 0.5})))
    fields = session_fields(session.stage_times(Environment(1, 2, "cpu", "fp32")))
    assert fields is not None
    assert set(fields["stage_seconds"]) == set(fields["stage_shares"]) == set(STAGES)  # type: ignore[call-overload]
    assert (fields["seconds"], fields["workers"], fields["beside_seconds"]) == (0, 1, {"read": 0.5, "publish": 0})
    assert str(fields["bottleneck"]).startswith("explaining takes")
    json.dumps(fields)
    assert session_fields(None) is None


def test_the_reasons_of_an_attempt_and_notes_of_workers_are_told(
    tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    watching, note = watch(tally), "the model cannot be compiled and runs uncompiled: no compiler"
    reason = "the device failed: CUDA error: device-side assert triggered; on it were the images a, b"
    watching.note(committed(isolated=True, reasons=(reason,), usage=Usage(notes=(note,))))
    watching.note(committed(usage=Usage(notes=(note,))))
    told = warnings(capsys)
    assert [(event["kind"], event["message"]) for event in told] == [
        ("careful", f"an attempt at chunk 7 of b.tar ended early: {reason}; its images were explained one by one"),
        ("note_of_worker", note),
    ]
    assert told[0]["reasons"] == [reason]


@pytest.mark.parametrize("at_the_end", [False, True])
def test_labels_in_another_order_are_one_warning(
    tally: Tally, capsys: pytest.CaptureFixture[str], at_the_end: bool
) -> None:
    watching = Watch(tally, Session(tally.clock), 1, SHARDS, json_events=True, name=["cat", "dog"].__getitem__)
    images = 10 if at_the_end else 40
    for _ in range(3):
        watching.note(committed(labelled={(0, 1): images // 2, (1, 0): images // 2}, confidence=0.9 * images))
    assert bool(capsys.readouterr().err) is not at_the_end
    watching.end()
    found = warnings(capsys)
    assert [(one["kind"], one["images"], one["right"]) for one in found] == [("label_order", 30, 0)] * at_the_end


def test_independent_labels_are_not_compared_with_predictions(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    watching = watch(tally)
    watching.note(committed(labelled={(0, 1): 500, (1, 0): 500}, confidence=900.0))
    watching.end()
    assert capsys.readouterr().err == ""
