"""The API against requests that schemathesis makes of its OpenAPI document, valid and not; all its checks are on."""

import asyncio
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.relay_api import judging
from tests.integration.test_api import serving, wish

# What is valid by its schema may still be no user, no locale, no app of this relay: 400 and 422 say so.
CONFIG: Final = """
[parameters]
"path.id" = "{id}"
"path.code" = "busy"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 409, 410, 422, 429, "5xx"]

# 413, since a body may be invalid and larger than the API reads.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 428, 429, "5xx"]
"""
EXAMPLES: Final = "20"  # requests of each kind for each operation: some 10 s in all


@pytest.mark.slow
@pytest.mark.parametrize("methods", ["--exclude-method", "--include-method"])
async def test_no_request_that_the_document_allows_or_forbids_gets_an_answer_that_it_does_not_have(
    methods: str, tmp_path: Path
) -> None:
    """DELETE runs by itself, since it ends the registration that the other operations need."""
    async with serving(vapid_public_key="BIfm") as api, judging(api.world):
        _, made = await api.call("POST", "/v1/registrations", wish())
        config = tmp_path / "schemathesis.toml"
        config.write_text(CONFIG.format(id=made["id"]))
        async with api.client.get("/v1/openapi.json") as described:
            url = str(described.url)
        arguments = (
            *("--config-file", str(config), "run", url),
            *("--checks", "all", "--max-examples", EXAMPLES, "--generation-deterministic"),
            *(methods, "DELETE", "--header", f"Authorization: Bearer {made['secret']}"),
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", *arguments),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()[-6000:]
