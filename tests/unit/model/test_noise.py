"""Random numbers depend only on the seed, the image and the purpose, and are the same on every device."""

import hashlib
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from device.simulated import DEVICE, simulated, to_host

from pipeline.model import noise
from pipeline.model.philox import Key, words_on

CPU = torch.device("cpu")
ALL_ONES, ALL_WORDS = (1 << 64) - 1, (1 << 256) - 1
PI = 0x452821E638D01377, 0xBE5466CF34E90C6C
PI_COUNTER = 0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89
KNOWN = {
    (0, 0, 0): (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    (ALL_ONES, ALL_ONES, ALL_WORDS): (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    (*PI, sum(word << 64 * i for i, word in enumerate(PI_COUNTER))): (
        0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6,
    ),
}  # fmt: skip
"""The vectors of Random123 for philox4x64-10: key and counter to four words."""


def draws(*keys: str, seed: int = 0, purpose: str = "m", samples: int = 2) -> torch.Tensor:
    return torch.stack(list(noise.normal(seed, keys, purpose, (2, 3), samples)), 1)


def test_the_numbers_of_an_image_do_not_depend_on_the_other_images() -> None:
    together = draws("a", "b", "c")
    assert torch.equal(together[1], draws("b")[0])
    assert torch.equal(together[[2, 0]], draws("c", "a"))
    assert torch.equal(draws("a", "b", "a"), draws("a", "b")[[0, 1, 0]])


def test_seed_key_and_purpose_each_change_the_numbers() -> None:
    first = draws("a")
    assert not any(torch.equal(first, other) for other in (draws("b"), draws("a", seed=1), draws("a", purpose="n")))


def test_more_samples_start_with_the_same_ones() -> None:
    assert torch.equal(draws("a", samples=5)[:, :2], draws("a"))


def test_the_random_state_of_the_caller_is_unchanged() -> None:
    before = torch.get_rng_state()
    draws("a", "\ud800")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("known", KNOWN)
def test_the_generator_gives_the_known_words(known: tuple[int, int, int]) -> None:
    low, high, counter = known
    drawn = np.random.Philox(key=low | high << 64, counter=(counter - 1) % (1 << 256)).random_raw(4)
    assert drawn.tolist() == list(KNOWN[known])
    if counter == 0:  # the operations of PyTorch count in the first word alone
        found = words_on([Key(low | high << 64)], 0, 1, CPU)
        assert found.numpy().view(np.uint64)[0].tolist() == list(KNOWN[known])


def test_operations_of_pytorch_give_the_words_of_numpy() -> None:
    keys = [Key(number) for number in (0, 5, 1 << 127, (1 << 128) - 1, 0x123456789ABCDEF << 60)]
    found_BW = words_on(keys, 1, 999, CPU).numpy().view(np.uint64)
    for words_W, key in zip(found_BW, keys, strict=True):
        assert (words_W == np.random.Philox(key=key.number).random_raw(4 * 999)).all()
    assert (words_on(keys, 500, 500, CPU).numpy().view(np.uint64) == found_BW[:, 4 * 499 :]).all()


@pytest.mark.parametrize("shape", [(3, 5), (3, 79, 79)], ids=["copied", "made there"])
def test_a_device_has_the_same_numbers_without_a_wait(shape: tuple[int, ...]) -> None:
    host = list(noise.normal(7, ["a", "b", "a"], "m", shape, 2))
    with simulated() as ledger:
        there = list(noise.normal(7, ["a", "b", "a"], "m", shape, 2, DEVICE))
        drawn = noise.uniform(7, ["a", "b"], "m", (2, 3), DEVICE)
        assert not ledger.waits
        assert all(torch.equal(to_host(one), other) for one, other in zip(there, host, strict=True))
        assert torch.equal(to_host(drawn), noise.uniform(7, ["a", "b"], "m", (2, 3), CPU))


def test_the_table_of_normal_numbers_is_that_of_every_machine() -> None:
    table = noise._table()
    assert hashlib.sha256(table.tobytes()).hexdigest()[:16] == "dfdb399543b1ac6e"
    assert np.array_equal(table, -table[::-1])


def test_normal_numbers_are_normal() -> None:
    numbers = noise.Stream(0, "a", "m").normal(200_000).double()
    assert abs(float(numbers.mean())) < 9e-3
    assert abs(float(numbers.std()) - 1) < 7e-3
    assert abs(float((numbers**4).mean()) - 3) < 0.07
    places = sorted(numbers.tolist())
    furthest = max(abs(NormalDist().cdf(x) - i / 2_000) for i, x in enumerate(places[::100]))
    assert furthest < 2 / math.sqrt(len(places))  # Kolmogorov and Smirnov: more is improbable, at 1e-3
    assert 4 < float(numbers.abs().max()) < 6.2
    pairs = numbers.view(-1, 2)
    assert abs(float((pairs[:, 0] * pairs[:, 1]).mean())) < 0.013


def test_uniform_numbers_whole_numbers_and_orders_are_uniform() -> None:
    stream = noise.Stream(0, "a", "m")
    numbers = stream.uniform(1000, 100)
    assert 0 <= float(numbers.min()) < 1e-4
    assert 1 - 1e-4 < float(numbers.max()) < 1
    assert torch.equal(numbers * 2**24, (numbers * 2**24).round())
    assert abs(float(numbers.double().var()) - 1 / 12) < 1e-3
    counts = np.bincount([stream.below(5) for _ in range(5000)], minlength=5)
    assert len(counts) == 5
    assert (abs(counts - 1000) < 120).all()
    firsts = np.bincount([int(stream.permutation(7)[0]) for _ in range(3500)], minlength=7)
    assert (abs(firsts - 500) < 90).all()
    assert sorted(stream.permutation(50).tolist()) == list(range(50))
