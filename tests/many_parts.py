"""Write a finished run of very many parts and time its readers: `python tests/many_parts.py DIR PARTS`.

All parts are hard links to one file (128 images, five methods), so that a hundred thousand fit on a disk. Their footers
name another chunk, which the readers timed here do not check.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from big_run import METHODS, METRICS, _rows
from handmade import RunMaker

from pipeline.results.status import status
from pipeline.results.summary import totals
from pipeline.storage.ownership import check_ownership
from pipeline.storage.parts import Footer, progress, publish_part, sweep
from pipeline.storage.run_folder import PartName, part_names

CHUNKS_A_SHARD, IMAGES = 100, 128
MOST_LINKS = 60_000
"""Hard links that ext4 allows to one file, with a margin."""


def write_run(folder: Path, parts: int) -> RunMaker:
    """Write one part, then the others as links to it or to a copy of it."""
    shards = [f"shard-{i:05d}.tar" for i in range(parts // CHUNKS_A_SHARD)]
    maker = RunMaker(folder, shards=shards, methods=METHODS[:5], metrics=METRICS)
    if (folder / "run.json").exists():
        return maker
    maker.owned()
    footer = Footer(maker.manifest.run_id, 0, 0, last_chunk=True, images=IMAGES)
    publish_part(maker.store, _rows(maker, 0, IMAGES), footer)
    sources = [folder / PartName(0, 0).file, folder / PartName(0, 0).receipt]
    for number in range(1, parts):
        name = PartName(*divmod(number, CHUNKS_A_SHARD))
        for place, target in enumerate((folder / name.file, folder / name.receipt)):
            if number % MOST_LINKS:
                os.link(sources[place], target)
            else:
                target.write_bytes(sources[place].read_bytes())
                sources[place] = target
    return maker


def main() -> None:
    """Write the run if it is missing, then time its readers."""
    maker = write_run(Path(sys.argv[1]), int(sys.argv[2]))
    readers: dict[str, Callable[[], object]] = {
        "list the parts": lambda: part_names(maker.store),
        "check ownership": lambda: check_ownership(maker.store, maker.manifest),
        "find the finished chunks, to resume": lambda: progress(maker.store),
        "look for temporary files": lambda: sweep(maker.store),
        "status, every part": lambda: status(maker.store, time.time(), None),
        "status": lambda: status(maker.store, time.time()),
        "totals at the end": lambda: totals(maker.store),
    }
    for what, read in readers.items():
        began = time.monotonic()
        read()
        sys.stdout.write(f"{what:36} {time.monotonic() - began:6.2f} s\n")


if __name__ == "__main__":
    main()
