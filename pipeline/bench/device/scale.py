"""How much is measured: on a GPU what fills it, on a CPU what a rehearsal of two minutes can hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The sizes of all measurements.

    Attributes:
        network: torchvision's name of the network that is timed, with random weights.
        side: height and width of its images in pixels.
        passes: numbers of images in a forward pass that are timed.
        images: most images of a case in one call.
        warm: images of a case before it is timed; of these, waits and kernels are counted.
        seconds: about how long one rate is measured.
        floats: numbers that are copied to find the bandwidth.
        product: side of the square matrices that are multiplied.
        compared: images whose maps and metrics are compared with the CPU's.
        photographs: encoded photographs that are decoded.
        spare_megabytes: memory for the passes that are made too large.
        budget: seconds for all measurements; the start of Python and of the device come on top.
    """

    network: str
    side: int
    passes: tuple[int, ...]
    images: int
    warm: int
    seconds: float
    floats: int
    product: int
    compared: int
    photographs: int
    spare_megabytes: int
    budget: float


FULL = Scale(
    "resnet50", 224, (16, 64, 256, 512), images=256, warm=16, seconds=2.0, floats=2**28, product=8192, compared=8,
    photographs=256, spare_megabytes=1000, budget=450,
)  # fmt: skip
REHEARSAL = Scale(
    "resnet18", 48, (16,), images=16, warm=2, seconds=0.2, floats=2**22, product=512, compared=2, photographs=24,
    spare_megabytes=100, budget=180,
)  # fmt: skip


def scale_for(device: str) -> Scale:
    """Return the sizes for a device."""
    return FULL if device == "cuda" else REHEARSAL
