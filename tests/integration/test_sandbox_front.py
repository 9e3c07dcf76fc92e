"""The proxy of the sandbox that lets browsers on this machine reach a relay without its certificate."""

import json
from pathlib import Path

from aiohttp import ClientSession, web

from relay.http.listeners import open_listener
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.front import open_front


async def test_requests_and_answers_pass_as_they_are(tmp_path: Path) -> None:
    ca = ThrowAwayCa()
    ca.write_ca(tmp_path / "ca.pem")

    async def took(request: web.Request) -> web.Response:
        told = {"path": request.raw_path, "method": request.method, "body": await request.text()}
        told |= {name: request.headers.get(name, "") for name in ("Authorization", "Sec-Fetch-Site")}
        return web.json_response(told, status=403, headers={"Content-Security-Policy": "default-src 'none'"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", took)
    async with (
        open_listener(app, "127.0.0.1", 0, ca.server_context()) as port,
        open_front(f"https://127.0.0.1:{port}", tmp_path / "ca.pem", 0) as front,
        ClientSession(f"http://127.0.0.1:{front}") as session,
    ):
        sent = {"Authorization": "Bearer x", "Sec-Fetch-Site": "same-origin"}
        answer = await session.put("/v1/registrations/a%2Fb?c=d", data="text", headers=sent)

        assert answer.status == 403
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
        assert json.loads(await answer.text()) == {
            "path": "/v1/registrations/a%2Fb?c=d",
            "method": "PUT",
            "body": "text",
            **sent,
        }


async def test_without_the_relay_the_answer_says_how_to_start_it(tmp_path: Path) -> None:
    ThrowAwayCa().write_ca(tmp_path / "ca.pem")
    async with (
        open_front("https://127.0.0.1:1", tmp_path / "ca.pem", 0) as front,
        ClientSession(f"http://127.0.0.1:{front}") as session,
    ):
        answer = await session.get("/app/")

        assert answer.status == 502
        assert "relay serve" in (await answer.json(content_type=None))["detail"]
