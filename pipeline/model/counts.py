"""Counts the passes that run through a model, in images."""

from dataclasses import dataclass


@dataclass
class Counts:
    """Passes since the probe was created, in images: a batch of 32 counts as 32; padding is not counted.

    Attributes:
        forwards: forward passes through the whole model, including those of masked images.
        head_passes: forward passes from the target layer to the logits only.
        backwards: backward passes, from a score of the logits to the captured layers or to the pixels.
    """

    forwards: int = 0
    head_passes: int = 0
    backwards: int = 0
