"""Estimates the seconds per image of a run from dry runs of one image and of as many images as time allows."""

import time
from dataclasses import dataclass

from pipeline.data.decode import DecodedChunk
from pipeline.planning.dry_run import Account, DryRun, DryRunner, PassShape

_FULL_PASS = 16
"""Passes are padded to this many images, so time is proportional to the number of images only above it."""

_ROUNDS = 3
"""Maximum dry runs of several images, of which the median counts."""


@dataclass(frozen=True)
class ImageTiming:
    """The timings of a run.

    Attributes:
        first: dry run of one image.
        last: dry run of several images, or `first` if there is only one.
        pass_seconds: seconds of a pass on the model, by shape.
        full: images of a full batch.
    """

    first: DryRun
    last: DryRun
    pass_seconds: dict[PassShape, float]
    full: int

    def seconds(self, name: str) -> float:
        """Return the seconds per image of an account in a full batch; extrapolates from dry runs of few images."""
        some, images = self._seconds(self.last, name), self.last.images
        settled = min(_FULL_PASS, self.full)
        if images >= settled or images == self.first.images:
            return some / images
        each = max(0.0, some - self._seconds(self.first, name)) / (images - self.first.images)
        return (some + each * (settled - images)) / settled

    def _seconds(self, dry_run: DryRun, name: str) -> float:
        account = dry_run.accounts.get(name, Account())
        return account.seconds + account.model_seconds(self.pass_seconds)


def time_images(dry_runner: DryRunner, chunk: DecodedChunk, until: float) -> ImageTiming:
    """Do a dry run of one image, then of as many as time allows, then time the model.

    Args:
        dry_runner: does the dry runs.
        chunk: images of the run, at most a full batch.
        until: deadline on the clock of `time.perf_counter`.
    """
    full = len(chunk.samples)
    dry_runner.explain(chunk, 1)  # warm-up
    first = dry_runner.explain(chunk, 1)
    last = first
    if full > 1:
        images = _affordable(dry_runner, chunk, first, until)
        rounds = [dry_runner.explain(chunk, images)]
        while len(rounds) < _ROUNDS and time.perf_counter() + 2 * _total(rounds[-1]) < until:
            rounds.append(dry_runner.explain(chunk, images))
        last = sorted(rounds, key=_total)[len(rounds) // 2]
    return ImageTiming(first, last, dry_runner.pass_seconds(), full)


def _affordable(dry_runner: DryRunner, chunk: DecodedChunk, first: DryRun, until: float) -> int:
    """Choose the number of images for the longer dry run: a full batch, unless that would take too long.

    Passes are padded, so several images may take no longer than one. If one image is slow, two are tried.
    """
    full, left = len(chunk.samples), until - time.perf_counter()
    if full * _total(first) <= left:
        return full
    each = max(1e-6, _total(dry_runner.explain(chunk, 2)) - _total(first))
    left = until - time.perf_counter()
    images = max(2, min(full, int(1 + max(0.0, left - _total(first)) / each)))
    return images if images in (full, *range(_FULL_PASS)) else images // _FULL_PASS * _FULL_PASS


def _total(dry_run: DryRun) -> float:
    return sum(account.seconds for account in dry_run.accounts.values())
