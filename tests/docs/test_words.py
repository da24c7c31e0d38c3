"""Sentences that need a second reading are not written again, and exceptions for names are few and used."""

import re
import tomllib

from docs.commands import ROOT
from handbook.blocks import blocks, spans
from handbook.checked import pages, text_of
from handbook.vocabulary import ALLOWED

RIDDLES = (
    "when the model forgets",
    "a mistake in the question",
    "nothing of them stands in",
    "loads that a worker holds ready",
    "it starves",
    "channels with equal masks are asked about once",
    "wrong and sure",
    "whatever the line loses",
)


def test_no_sentence_is_a_riddle() -> None:
    files = [*pages(ROOT), *ROOT.glob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    files += [path for folder in ("camatlas", "jobs", "pipeline", "schemas") for path in (ROOT / folder).rglob("*.py")]
    texts = {path: " ".join(path.read_text(encoding="utf-8").split()).lower() for path in files}
    assert [(path, riddle) for path, text in texts.items() for riddle in RIDDLES if riddle in text] == []


def test_every_word_that_is_allowed_is_written_somewhere() -> None:
    texts = [text_of(page) for page in pages(ROOT)]
    written = {
        word
        for text in texts
        for piece in (*(span.text for span in spans(text)), *(block.text for block in blocks(text)))
        for word in re.findall(r"\w+", piece)
    }
    allowed = {word for words in tomllib.loads(ALLOWED.read_text(encoding="utf-8")).values() for word in words}
    assert allowed - written == set()
