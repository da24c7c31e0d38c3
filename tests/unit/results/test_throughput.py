"""Throughput of a run from publication times: pauses, rates and stragglers."""

import pytest

from pipeline.results.throughput import Rate, Straggler, Throughput, stragglers

EVERY_TEN = [(1000.0 + 10 * number, 5) for number in range(20)]


def test_a_steady_run_has_no_pause_and_one_rate() -> None:
    throughput = Throughput.of(list(reversed(EVERY_TEN)))
    assert (throughput.pauses, throughput.usual) == ((), 10)
    assert throughput.overall() == Rate(95, 190)
    assert throughput.overall().a_second == 0.5


def test_the_overall_rate_excludes_pauses_and_the_part_after_each() -> None:
    later = [(time + 10_000, images) for time, images in EVERY_TEN]
    throughput = Throughput.of(EVERY_TEN + later)
    assert throughput.pauses == ((1190, 11_000),)
    assert throughput.overall() == Rate(190, 380)


def test_regular_long_chunks_are_not_pauses() -> None:
    assert Throughput.of([(1200.0 * number, 5) for number in range(10)]).pauses == ()


def test_the_recent_rate_falls_without_new_parts() -> None:
    throughput = Throughput.of(EVERY_TEN)
    assert throughput.recent(1190).a_second == 0.5
    assert throughput.recent(1190 + 300) == Rate(40, 380)  # at least eight parts


def test_the_recent_rate_covers_the_last_five_minutes_and_no_pause() -> None:
    fast = [(5000.0 + number, 1) for number in range(600)]
    assert Throughput.of(fast).recent(5599) == Rate(300, 300)
    resumed = [(time + 100_000, images) for time, images in EVERY_TEN[:4]]
    assert Throughput.of(EVERY_TEN + resumed).recent(101_040) == Rate(15, 40)


def test_few_parts_give_no_rate() -> None:
    assert Throughput.of([]).overall() == Throughput.of([]).recent(7) == Rate(0, 0)
    assert Throughput.of([(5.0, 9)]).overall().a_second is None
    assert Throughput.of([(5.0, 9), (5.5, 9)]).overall().a_second is None, (
        "a fraction of a second is too short for a rate"
    )


@pytest.mark.parametrize(
    ("parts", "seconds"), [([], 1800), (EVERY_TEN, 300), ([(0, 1), (90, 1), (180, 1), (270, 1)], 900)]
)
def test_a_run_is_quiet_after_ten_times_the_usual_gap(parts: list[tuple[float, int]], seconds: float) -> None:
    assert Throughput.of(parts).quiet_after == seconds


def chunks(first: float, *gaps: float) -> dict[int, float]:
    times = [first + sum(gaps[:count]) for count in range(len(gaps) + 1)]
    return dict(enumerate(times))


def found(shards: dict[int, dict[int, float]], *open_shards: int) -> list[Straggler]:
    times = [(time, 1) for of_shard in shards.values() for time in of_shard.values()]
    return stragglers(shards, open_shards, Throughput.of(times))


STEADY = {0: chunks(1000, 10, 10, 10, 10, 10, 10), 1: chunks(1005, 10, 10, 10, 10, 10)}


def test_a_steady_run_has_no_stragglers() -> None:
    assert found(STEADY, 0, 1) == []


def test_a_chunk_that_took_far_longer_is_slow() -> None:
    slow = STEADY | {2: chunks(1000, 10, 150, 10)}
    assert found(slow) == [Straggler("slow", 2, 2, 150)]


def test_a_shard_that_stops_while_others_continue_is_behind() -> None:
    behind = STEADY | {2: chunks(1000, *[10] * 30), 3: chunks(1000, 10)}
    assert found(behind, 2, 3) == [Straggler("behind", 3, 2, 290)]
    assert found(behind, 2) == [], "a finished shard is not behind"


def test_stragglers_are_sorted_and_pauses_are_subtracted() -> None:
    shards = STEADY | {2: chunks(1000, 10, 120), 3: chunks(1200, 5_000, 10), 4: chunks(1005, 200)}
    assert [(one.shard, one.seconds) for one in found(shards)] == [(4, 200), (2, 120)]


def test_a_repaired_chunk_is_not_a_straggler() -> None:
    assert found(STEADY | {2: {0: 1500.0, 1: 1010.0, 2: 1020.0}}) == []


def test_few_chunks_give_no_stragglers() -> None:
    assert found({0: chunks(0, 1, 1, 200)}, 0) == []
