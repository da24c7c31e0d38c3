"""Depth of images: notices when the values of 16-bit images use only a small part of their range."""

from dataclasses import dataclass

LOW_VALUES = 1 << 12
"""A sixteenth of the range: the values of 12-bit images in 16-bit files lie below it."""


@dataclass(frozen=True)
class Depth:
    """The images of more than 8 bits whose range is that of their type: their number, and their largest value."""

    images: int = 0
    peak: int = 0

    def __add__(self, other: "Depth") -> "Depth":
        return Depth(self.images + other.images, max(self.peak, other.peak))

    def warning(self) -> str:
        """Return a sentence if all values are low, so that the model sees images that are almost black; else ""."""
        if not self.images or self.peak >= LOW_VALUES:
            return ""
        return (
            f"no value of the {self.images} 16-bit images read so far exceeds {self.peak} of 65535, so the model sees "
            f"them almost black: set data.window to the range of the values, such as [0, {LOW_VALUES - 1}], or to image"
        )
