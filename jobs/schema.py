"""camatlas schema: print the JSON Schema of the run file."""

import json
from pathlib import Path
from typing import Annotated

import typer

from jobs.support.console import command, leave_after, out
from pipeline.errors import ConfigError, reason


@command
def schema(
    output: Annotated[str | None, typer.Option("--out", help="write this file instead, and print its name")] = None,
) -> int:
    """Print the JSON Schema of the run file: every key with its meaning; editors check and complete keys by it."""
    from pipeline.settings.json_schema import run_file_schema

    text = json.dumps(run_file_schema(), indent=2)
    if output is None:
        out.print(text)
        return 0
    try:
        Path(output).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError.one("--out", f"cannot write '{output}': {reason(error)}") from None
    out.say(output)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(schema))
