"""Files that are no images are counted by kind, so that a user sees what was left out."""

from collections.abc import Callable
from pathlib import Path

from pipeline.data.account import LabelAccount
from pipeline.data.ignored import ignored_files

Put = Callable[..., Path]
Account = Callable[..., tuple[dict[str, int | None], LabelAccount]]


def test_files_are_counted_by_kind(put: Put) -> None:
    folder = put(
        "f", "a.jpg", "a/b.jpg", "labels.csv", "Thumbs.db", "._a.jpg", "a/._b.jpg", ".x", ".git/config", "r.md", "s.MD",
        "LICENSE",
    )  # fmt: skip
    assert ignored_files(folder, {"a.jpg", "a/b.jpg", "labels.csv"}) == {
        "._*": 2, ".md": 2, "Thumbs.db": 1, "hidden": 1, "hidden folder": 1, "LICENSE": 1,
    }  # fmt: skip


def test_the_account_shows_them(put: Put, account: Account) -> None:
    folder = put("f", "a.jpg", "notes.txt", "._a.jpg")
    (folder / "boxes.csv").write_text("filename,x0,y0,x1,y1\na.jpg,0,0,1,1\n")
    _, told = account(folder)
    assert told.lines()[-1] == "ignored   2 files: 1 ._*, 1 .txt"
