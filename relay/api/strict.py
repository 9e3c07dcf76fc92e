"""Own how strict the models of the API are: no unknown fields, no conversions, no values in errors."""

import re
from typing import Final

from pydantic import BaseModel, ConfigDict

NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", re.ASCII)
"""What names of apps and servers look like."""


class Strict(BaseModel):
    """Be the base of every model."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
