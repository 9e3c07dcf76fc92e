"""Own the control of the push simulators by HTTP, so that a process of its own can be driven by tests and demos.

JSON everywhere. For each of /apns and /fcm:
GET received?at_least=N&within=SECONDS -> {"received": [...]}, waiting until there are N; DELETE received forgets them;
POST gone {"token", "since"?}; POST fail {"kind", "times"?, fields of the failure}; POST heal; POST drop (APNs only).
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from aiohttp import web

from relay.sandbox.apns import ApnsSimulator
from relay.sandbox.clock import now
from relay.sandbox.fcm import FcmSimulator
from relay.sandbox.scripts import KINDS, Failure, Received

LONGEST: Final = 60.0  # seconds a request may wait for pushes


class Simulator(Protocol):
    """Be what both simulators have in common."""

    @property
    def received(self) -> list[Received]:
        """Give all requests so far."""

    async def wait(self, count: int, timeout_s: float = ...) -> list[Received]:
        """Wait until so many requests came."""

    def fail(self, failure: Failure, times: int = 1) -> None:
        """Let a failure happen."""

    def heal(self) -> None:
        """Forget all failures."""


def push_control_app(apns: ApnsSimulator, fcm: FcmSimulator) -> web.Application:
    """Make the web application that controls both simulators."""
    app = web.Application()
    _add(app, "/apns", apns)
    _add(app, "/fcm", fcm)

    async def apns_gone(request: web.Request) -> web.Response:
        fields = await _fields(request)
        try:
            since = datetime.fromisoformat(fields["since"]) if "since" in fields else now()
            apns.gone(str(fields["token"]), since)
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(f"token and perhaps since are wanted: {error}") from error
        return web.Response(status=204)

    async def apns_drop(_: web.Request) -> web.Response:
        apns.drop()
        return web.Response(status=204)

    async def fcm_gone(request: web.Request) -> web.Response:
        fields = await _fields(request)
        if not isinstance(fields.get("token"), str):
            raise _bad("token is wanted")
        fcm.gone(fields["token"])
        return web.Response(status=204)

    app.router.add_post("/apns/gone", apns_gone)
    app.router.add_post("/apns/drop", apns_drop)
    app.router.add_post("/fcm/gone", fcm_gone)
    return app


def read_failure(fields: Mapping[str, Any]) -> tuple[Failure, int]:
    """Read a failure and how many requests it happens to; raises ValueError."""
    rest = dict(fields)
    kind, times = rest.pop("kind", None), rest.pop("times", 1)
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}")
    if not isinstance(times, int) or times < 0:
        raise ValueError("times is a number, 0 for always")
    try:
        return KINDS[kind](**rest), times
    except TypeError as error:
        raise ValueError(f"{kind}: {error}") from error


def write_received(received: Received) -> dict[str, object]:
    """Write one request as JSON; the body as text."""
    return received._asdict() | {"headers": dict(received.headers), "body": received.body.decode(errors="replace")}


def _add(app: web.Application, prefix: str, simulator: Simulator) -> None:
    async def received(request: web.Request) -> web.Response:
        try:
            count = int(request.query.get("at_least", "0"))
            within = min(LONGEST, float(request.query.get("within", "10")))
        except ValueError as error:
            raise _bad(str(error)) from error
        try:
            requests = await simulator.wait(count, within)
        except TimeoutError:
            requests = list(simulator.received)
        return web.json_response({"received": [write_received(each) for each in requests]})

    async def forget(_: web.Request) -> web.Response:
        simulator.received.clear()
        return web.Response(status=204)

    async def fail(request: web.Request) -> web.Response:
        try:
            simulator.fail(*read_failure(await _fields(request)))
        except ValueError as error:
            raise _bad(str(error)) from error
        return web.Response(status=204)

    async def heal(_: web.Request) -> web.Response:
        simulator.heal()
        return web.Response(status=204)

    app.router.add_get(f"{prefix}/received", received)
    app.router.add_delete(f"{prefix}/received", forget)
    app.router.add_post(f"{prefix}/fail", fail)
    app.router.add_post(f"{prefix}/heal", heal)


async def _fields(request: web.Request) -> dict[str, Any]:
    try:
        fields = await request.json()
    except ValueError as error:
        raise _bad("the body is no JSON") from error
    if not isinstance(fields, dict):
        raise _bad("the body is no JSON object")
    return fields


def _bad(detail: str) -> web.HTTPBadRequest:
    problem = json.dumps({"title": "Bad request", "status": 400, "detail": detail})
    return web.HTTPBadRequest(text=problem, content_type="application/problem+json")
