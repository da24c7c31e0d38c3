"""Thumbnails keep the proportions of the model's input."""

import base64
import io

import pytest
from PIL import Image

from pipeline.audit.figures import THUMBNAIL, thumbnail, thumbnail_size


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(224, 224, (112, 112)), (224, 448, (112, 56)), (448, 224, (56, 112)), (32, 32, (112, 112)), (1, 999, (112, 1))],
)
def test_the_longer_side_is_that_of_every_thumbnail(height: int, width: int, size: tuple[int, int]) -> None:
    assert thumbnail_size(height, width) == size
    assert max(size) == THUMBNAIL
    address = thumbnail(Image.new("RGB", (width, height)))
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as shown:
        assert shown.size == size
