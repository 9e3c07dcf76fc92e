"""The verbs of a sandbox that runs in another process, for the command line and for phones."""

from collections.abc import Mapping
from typing import Any

import aiohttp


class SandboxRefused(Exception):
    """A sandbox did not do what was asked; the text says why."""


async def order(control: str, verb: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Send a verb to the control listener at the URL `control`; return its answer. Raises SandboxRefused."""
    try:
        async with aiohttp.ClientSession() as session, session.post(f"{control}/{verb}", json=fields) as response:
            answer = await response.json(content_type=None)
            if response.ok and isinstance(answer, dict):
                return answer
            detail = answer.get("detail", response.status) if isinstance(answer, dict) else response.status
            raise SandboxRefused(f"the sandbox refused `{verb}`: {detail}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise SandboxRefused(
            f"no sandbox answers at {control}: start `relay sandbox`, or name its --control"
        ) from error
