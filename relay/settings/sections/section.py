"""Own what all tables of relay.toml share: no key but those named, and the shapes that many values have."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def split(value: Any) -> Any:
    """Take a comma-separated text for a list, the only form that an environment variable can have."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def split_numbers(value: Any) -> Any:
    """Take a comma-separated text for a list of whole numbers; what is none is left for the check to find."""
    parts = split(value)
    if parts is value:
        return value
    return [int(part) if part.isdecimal() else part for part in parts]


Text = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(split)]


class Section(BaseModel):
    """Hold one table of relay.toml; None stands for a key that is not set and has no default of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
