"""The section `about` of a run file: who answers for the model, and what it is for. It changes no row of a run."""

import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

MOST_CHARACTERS, MOST_KEYS, LONGEST_KEY = 4000, 50, 80


def _as_text(value: object) -> str:
    """Return a text within its bounds; numbers and dates, which YAML reads from texts such as `1.2`, become text."""
    if isinstance(value, (int, float, datetime.date)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > MOST_CHARACTERS:
        raise PydanticCustomError("text", f"must be a text of 1 to {MOST_CHARACTERS} characters")
    return value


Text = Annotated[str, BeforeValidator(_as_text)]


class AboutConfig(BaseModel):
    """The head of the model card in the report. Keys of one's own are texts, too."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())
    __pydantic_extra__: dict[str, Text]

    owner: Text | None = None
    """Who is responsible for the model."""
    version: Text | None = None
    """The version of the model."""
    licence: Text | None = None
    """The licence of the model."""
    intended_use: Text | None = None
    """What the model is for."""
    not_intended: Text | None = None
    """What the model must not be used for."""
    limitations: Text | None = None
    """What is known not to work."""
    contact: Text | None = None
    """Whom to ask."""

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, given: Any) -> Any:  # noqa: ANN401 - whatever the run file holds
        """Bound the number of keys and their lengths."""
        if isinstance(given, dict):
            if len(given) > MOST_KEYS:
                raise PydanticCustomError("many", f"must have at most {MOST_KEYS} keys")
            if any(len(str(name)) > LONGEST_KEY for name in given):
                raise PydanticCustomError("long", f"must have keys of at most {LONGEST_KEY} characters")
            return {str(name): value for name, value in given.items()}
        return given
