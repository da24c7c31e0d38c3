"""Prints the label account of a run: what each image will be called, and from where."""

from typing import TYPE_CHECKING

from jobs.support.console import err
from jobs.support.progress import emit

if TYPE_CHECKING:
    from pipeline.data.account import LabelAccount


def print_account(account: "LabelAccount") -> None:
    """Print the account, and a warning for each file that does not match all images."""
    for line in account.lines():
        err.say(line)
    for warning in account.warnings():
        err.say(f"warning: {warning}")


def emit_account(account: "LabelAccount") -> None:
    """Emit the account as the event `labels`, and its warnings as events."""
    emit("labels", **account.to_json())
    for warning in account.warnings():
        emit("warning", kind="labels", message=warning)
