"""What may be decoded and how: formats, size, the window of deep images, and the user's decoder."""

from dataclasses import dataclass

from pipeline.settings.data import Window


class UnreadableImageError(ValueError):
    """An image that cannot or must not be decoded; it becomes a failure row with `code`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class DecoderSource:
    """Where a user's decoder is found.

    Attributes:
        name: `package.module:function`.
        folders: folders with its module and those that it imports; the first one, the working folder of the run, is
            searched before the installed modules, the others after them.
        digest: of the source file; another source is refused. Empty: any source.
    """

    name: str
    folders: tuple[str, ...]
    digest: str = ""


@dataclass(frozen=True)
class DecodeLimits:
    """The rules of decoding, the same for every image of a run.

    Attributes:
        formats: the allowed formats (Pillow names).
        max_pixels: the largest height x width.
        window: how values of more than 8 bits become pixels: `dtype` keeps the high byte, `image` takes the range of
            each image, and (low, high) is a range in values of the file; values beyond it are clipped.
        decoder: the user's decoder; None decodes image files.
        boxes_relative: the boxes of the image are in shares of its width and height, and not in pixels.
    """

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")
    max_pixels: int = 64_000_000
    window: Window = "dtype"
    decoder: DecoderSource | None = None
    boxes_relative: bool = False
