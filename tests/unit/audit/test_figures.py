"""Thumbnails keep the proportions of the model's input."""

import base64
import io

import pytest
from PIL import Image

from pipeline.audit.figures import THUMBNAIL, thumbnail, thumbnail_size


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(224, 224, (160, 160)), (224, 448, (160, 80)), (448, 224, (80, 160)), (32, 32, (160, 160)), (1, 999, (160, 1))],
)
def test_the_longer_side_is_that_of_every_thumbnail(height: int, width: int, size: tuple[int, int]) -> None:
    assert thumbnail_size(height, width) == size
    assert max(size) == THUMBNAIL
    address = thumbnail(Image.new("RGB", (width, height)))
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as shown:
        assert shown.size == size
