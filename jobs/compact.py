"""camatlas compact: merge the parts of a run into a copy in which single images are found fast."""

from typing import Annotated

import typer

from jobs.support.console import amount, command, counted, leave_after, out


@command
def compact(run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")]) -> int:
    """Merge the parts of a run into a sorted copy, in which single images are found fast; the parts are kept."""
    from pipeline.storage.compaction import compact as compact_run
    from pipeline.storage.store import open_store

    done = compact_run(open_store(run))
    files = done.record.files
    size = amount(sum(file.size for file in files), "B")
    action = "merged" if done.new else "already merged:"
    rows = f"{counted(done.record.rows, 'row')} of {counted(done.record.parts_count, 'part')}"
    out.say(f"{action} {rows}; files: {len(files)}, {size}")
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(compact))
