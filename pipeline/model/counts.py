"""What a run costs the model, counted in images and never estimated."""

from dataclasses import dataclass


@dataclass
class Counts:
    """Passes since the probe was made, in images: a batch of 32 counts 32. Padding is not counted.

    Attributes:
        forwards: whole forward passes, masked ones included.
        head_passes: passes from the target layer to the logits alone.
        backwards: backward passes from a logit to the target layer.
    """

    forwards: int = 0
    head_passes: int = 0
    backwards: int = 0
