"""The references for programs that start verbs: events and exit codes."""

from collections.abc import Mapping

from handbook.markdown import code, escaped, table
from jobs.support.event_fields import EVENTS, SESSION, WARNINGS, Described
from jobs.support.exit_codes import EXIT_CODES


def events_page() -> str:
    """Write the page of events."""
    parts = [f"## `{name}`\n\n{_described(event)}" for name, event in EVENTS.items()]
    parts.append(f"## The field `session` of `end`\n\n{_fields(SESSION)}")
    kinds = [f"### `{name}`\n\n{_described(warning)}" for name, warning in WARNINGS.items()]
    return "\n\n".join([*parts, "## Kinds of warnings", *kinds]) + "\n"


def exit_codes_page() -> str:
    """Write the page of exit codes."""
    rows = [[str(number), escaped(meaning)] for number, meaning in EXIT_CODES.items()]
    return f"{table(['exit code', 'meaning'], rows)}\n"


def _described(event: Described) -> str:
    return "\n\n".join([escaped(event.meaning), *[_fields(event.fields)] * bool(event.fields)])


def _fields(fields: Mapping[str, str]) -> str:
    return table(["field", "meaning"], [[code(name), escaped(meaning)] for name, meaning in fields.items()])
