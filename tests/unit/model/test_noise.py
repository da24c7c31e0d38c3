"""Random numbers depend only on the seed, the image and the purpose."""

import torch

from pipeline.model import noise


def draws(*keys: str, seed: int = 0, purpose: str = "m", samples: int = 2) -> torch.Tensor:
    return torch.stack(list(noise.normal(seed, keys, purpose, (2, 3), samples)), 1)


def test_the_numbers_of_an_image_do_not_depend_on_the_other_images() -> None:
    together = draws("a", "b", "c")
    assert torch.equal(together[1], draws("b")[0])
    assert torch.equal(together[[2, 0]], draws("c", "a"))


def test_seed_key_and_purpose_each_change_the_numbers() -> None:
    first = draws("a")
    assert not any(torch.equal(first, other) for other in (draws("b"), draws("a", seed=1), draws("a", purpose="n")))


def test_more_samples_start_with_the_same_ones() -> None:
    assert torch.equal(draws("a", samples=5)[:, :2], draws("a"))


def test_the_random_state_of_the_caller_is_unchanged() -> None:
    before = torch.get_rng_state()
    draws("a", "\ud800")
    assert torch.equal(torch.get_rng_state(), before)
