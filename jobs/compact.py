"""camatlas compact: a merged copy of a run, in which images are found faster."""

from typing import Annotated

import typer

from jobs.support.console import amount, command, leave_after, out


@command
def compact(run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")]) -> int:
    """Write a merged copy of the parts, in which an image is found faster; the parts stay."""
    from pipeline.storage.compaction import compact as compacted
    from pipeline.storage.store import open_store

    done = compacted(open_store(run))
    files = done.record.files
    size = amount(sum(file.size for file in files), "B")
    begun = "merged" if done.new else "nothing to do:"
    out.say(f"{begun} {done.record.rows} rows of {done.record.parts_count} parts; files: {len(files)}, {size}")
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(compact))
