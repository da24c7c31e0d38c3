"""The rhythm of a run: pauses, rates and stragglers, from times alone."""

import pytest

from pipeline.results.throughput import Rate, Straggler, Throughput, stragglers

EVERY_TEN = [(1000.0 + 10 * number, 5) for number in range(20)]


def test_a_steady_run_has_no_pause_and_one_rate() -> None:
    throughput = Throughput.of(list(reversed(EVERY_TEN)))
    assert (throughput.pauses, throughput.usual) == ((), 10)
    assert throughput.overall() == Rate(95, 190)
    assert throughput.overall().a_second == 0.5


def test_a_pause_counts_neither_as_time_nor_with_the_part_that_ends_it() -> None:
    later = [(time + 10_000, images) for time, images in EVERY_TEN]
    throughput = Throughput.of(EVERY_TEN + later)
    assert throughput.pauses == ((1190, 11_000),)
    assert throughput.overall() == Rate(190, 380)


def test_chunks_that_take_long_are_no_pauses() -> None:
    assert Throughput.of([(1200.0 * number, 5) for number in range(10)]).pauses == ()


def test_the_rate_of_now_sinks_when_nothing_comes() -> None:
    throughput = Throughput.of(EVERY_TEN)
    assert throughput.recent(1190).a_second == 0.5
    assert throughput.recent(1190 + 300) == Rate(40, 380)  # eight parts, however long ago


def test_the_rate_of_now_counts_the_last_five_minutes_and_no_pause() -> None:
    fast = [(5000.0 + number, 1) for number in range(600)]
    assert Throughput.of(fast).recent(5599) == Rate(300, 300)
    resumed = [(time + 100_000, images) for time, images in EVERY_TEN[:4]]
    assert Throughput.of(EVERY_TEN + resumed).recent(101_040) == Rate(15, 40)


def test_few_parts_tell_no_rate() -> None:
    assert Throughput.of([]).overall() == Throughput.of([]).recent(7) == Rate(0, 0)
    assert Throughput.of([(5.0, 9)]).overall().a_second is None
    assert Throughput.of([(5.0, 9), (5.5, 9)]).overall().a_second is None, "a fraction of a second says nothing"


@pytest.mark.parametrize(
    ("parts", "seconds"), [([], 1800), (EVERY_TEN, 300), ([(0, 1), (90, 1), (180, 1), (270, 1)], 900)]
)
def test_a_run_is_quiet_after_ten_times_the_usual(parts: list[tuple[float, int]], seconds: float) -> None:
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


def test_a_shard_that_waits_while_others_go_on_is_behind() -> None:
    behind = STEADY | {2: chunks(1000, *[10] * 30), 3: chunks(1000, 10)}
    assert found(behind, 2, 3) == [Straggler("behind", 3, 2, 290)]
    assert found(behind, 2) == [], "a finished one is not"


def test_slowest_first_and_pauses_do_not_count() -> None:
    shards = STEADY | {2: chunks(1000, 10, 120), 3: chunks(1200, 5_000, 10), 4: chunks(1005, 200)}
    assert [(one.shard, one.seconds) for one in found(shards)] == [(4, 200), (2, 120)]


def test_what_a_repair_wrote_later_than_its_successor_is_not_judged() -> None:
    assert found(STEADY | {2: {0: 1500.0, 1: 1010.0, 2: 1020.0}}) == []


def test_a_few_chunks_say_nothing_of_what_is_usual() -> None:
    assert found({0: chunks(0, 1, 1, 200)}, 0) == []
