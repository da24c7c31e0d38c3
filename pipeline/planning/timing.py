"""Seconds per image of a run, from rehearsals of one image and of as many as time allows."""

import time
from dataclasses import dataclass

from pipeline.data.decode import DecodedChunk
from pipeline.planning.dry_run import Account, DryRun, DryRunner, PassShape

_SETTLED = 16
"""From so many images on, time grows with their number: passes are filled up to 16."""

_ROUNDS = 3


@dataclass(frozen=True)
class ImageTiming:
    """Rehearsals of one image and of several, and the model's seconds for a pass of each shape."""

    first: DryRun
    last: DryRun
    pass_seconds: dict[PassShape, float]
    full: int

    def seconds(self, name: str) -> float:
        """Seconds per image of an account in a full batch; of a few images the fixed part is told from the rest."""
        some, images = self._seconds(self.last, name), self.last.images
        settled = min(_SETTLED, self.full)
        if images >= settled or images == self.first.images:
            return some / images
        each = max(0.0, some - self._seconds(self.first, name)) / (images - self.first.images)
        return (some + each * (settled - images)) / settled

    def _seconds(self, dry_run: DryRun, name: str) -> float:
        account = dry_run.accounts.get(name, Account())
        return account.seconds + account.model_seconds(self.pass_seconds)


def time_images(dry_runner: DryRunner, chunk: DecodedChunk, until: float) -> ImageTiming:
    """Rehearse one image, then as many as time allows, then time the model.

    Args:
        rehearser: the run.
        chunk: real images, at most a full batch.
        until: when to be done, on the clock of `time.perf_counter`.
    """
    full = len(chunk.samples)
    dry_runner.explain(chunk, 1)  # whatever is done once only
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
    """Choose how many images to rehearse: a full batch, unless that would take too long.

    Passes of few images are filled up, so several may take no longer than one: two are tried where one is slow.
    """
    full, left = len(chunk.samples), until - time.perf_counter()
    if full * _total(first) <= left:
        return full
    each = max(1e-6, _total(dry_runner.explain(chunk, 2)) - _total(first))
    left = until - time.perf_counter()
    images = max(2, min(full, int(1 + max(0.0, left - _total(first)) / each)))
    return images if images in (full, *range(_SETTLED)) else images // _SETTLED * _SETTLED


def _total(dry_run: DryRun) -> float:
    return sum(account.seconds for account in dry_run.accounts.values())
