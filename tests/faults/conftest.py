"""What the tests of faults share."""

import pyarrow as pa
import pytest

from pipeline import parts
from pipeline.parts import Footer


@pytest.fixture
def encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode each part once: that is no operation on a store, and the same rows make the same bytes."""
    encode, made = parts.encode_part, dict[Footer, bytes]()

    def encode_once(table: pa.Table, footer: Footer) -> bytes:
        if footer not in made:
            made[footer] = encode(table, footer)
        return made[footer]

    monkeypatch.setattr(parts, "encode_part", encode_once)
