"""Tell the mistakes in a run file as soon as they are known: those of the file itself before torch is imported."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from jobs.support.console import counted, err
from pipeline.errors import ConfigError, Mistake, Mistakes


class Telling:
    """Prints mistakes as they are found; what has been printed is not printed again.

    Args:
        mistakes: collects the mistakes of all checks.
    """

    def __init__(self, mistakes: Mistakes) -> None:
        self._mistakes = mistakes
        self._told: dict[Mistake, None] = {}

    def tell(self) -> None:
        """Print the mistakes that were found since the last call."""
        is_first = not self._told
        for mistake in self._mistakes.found:
            if mistake not in self._told:
                err.say(f"error: {mistake}")
                self._told[mistake] = None
        if is_first and self._told:
            err.say("looking for more mistakes, in the data and the model")

    @contextmanager
    def the_rest(self) -> Iterator[None]:
        """Print the other mistakes that the checks inside find, if some have been told already, and exit."""
        try:
            yield
        except ConfigError as error:
            if not self._told:
                raise
            self._mistakes.found.extend(error.mistakes)
            self.tell()
            err.say(f"error: {counted(len(self._told), 'mistake')}, nothing was started")
            raise typer.Exit(ConfigError.exit_code) from None
