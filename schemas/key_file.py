"""The CSV that names images: `camatlas view` and `camatlas query` write it, and `data.keys` reads it.

A cell that a spreadsheet would run as a formula gets an apostrophe. So does one that begins with apostrophes before
such a text, so that what is read is always what was written.
"""

SHARD_COLUMN = "shard"
KEY_COLUMN = "image_key"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def escaped(text: str) -> str:
    """Return a text as a cell that no spreadsheet runs."""
    return f"'{text}" if _needs_apostrophe(text) else text


def unescaped(cell: str) -> str:
    """Return the text of a cell that `escaped` made."""
    return cell[1:] if cell.startswith("'") and _needs_apostrophe(cell) else cell


def _needs_apostrophe(text: str) -> bool:
    return text.lstrip("'").startswith(_FORMULA_STARTS)
