"""Own the control of the push simulators by HTTP, so that a process of its own can be driven by tests and demos.

JSON everywhere. For each of /apns, /fcm and /webpush:
GET received?at_least=N&within=SECONDS -> {"received": [...]}, waiting until there are N; DELETE received forgets them;
POST gone {"token", "since"?}; POST fail {"kind", "times"?, fields of the failure}; POST heal; POST drop;
POST mix {"seed"?, "failures": [{"kind", "share", fields of the failure}]}.
APNs and FCM: POST leave-idle; POST fail-handshakes. APNs only: POST deafen.
FCM only: POST fail-tokens as fail; POST forget-tokens; POST rotate -> the service account with another key.
WebPush: POST subscriptions {"vapid_public_key"?} -> the subscription of a new phone; POST gone {"endpoint"}; what a
phone reads in a push is its `message`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from aiohttp import web

from relay.process.clock import now
from relay.sandbox.apns import ApnsSimulator
from relay.sandbox.control_json import bad_request, problems, read_fields
from relay.sandbox.fcm import FcmSimulator
from relay.sandbox.fcm_control import add_fcm
from relay.sandbox.script_json import read_failure, read_mixture
from relay.sandbox.scripts import APNS_KINDS, FCM_KINDS, KINDS, Mixture, Received
from relay.sandbox.webpush import WebPushSimulator
from relay.sandbox.webpush_control import add_webpush, write_opened

LONGEST: Final = 60.0  # seconds a request may wait for pushes


class Simulator(Protocol):
    """Be what both simulators have in common."""

    @property
    def received(self) -> list[Received]:
        """Give all requests so far."""

    async def wait(self, count: int, timeout_s: float = ...) -> list[Received]:
        """Wait until so many requests came."""

    def fail(self, failure: Any, times: int = 1) -> None:
        """Let a failure happen, one of the simulator's kinds."""

    def mix(self, mixture: Mixture[Any]) -> None:
        """Let requests fail at random."""

    def drop(self) -> None:
        """Cut all connections."""

    def heal(self) -> None:
        """Forget all failures."""


class Listener(Protocol):
    """Be what fails below HTTP, too."""

    def leave_idle(self) -> None:
        """End all connections in good order."""

    def fail_handshakes(self) -> None:
        """Let TLS fail on all new connections."""


def push_control_app(apns: ApnsSimulator, fcm: FcmSimulator, webpush: WebPushSimulator) -> web.Application:
    """Make the web application that controls all push simulators."""
    app = web.Application(middlewares=[problems])
    _add(app, "/apns", apns, APNS_KINDS)
    _add(app, "/fcm", fcm, FCM_KINDS)
    _add_listener(app, "/apns", apns)
    _add_listener(app, "/fcm", fcm)
    add_fcm(app, fcm)
    _add(app, "/webpush", webpush, KINDS, lambda received: write_received(received) | write_opened(webpush, received))
    add_webpush(app, webpush)

    async def apns_gone(request: web.Request) -> web.Response:
        fields = await read_fields(request)
        try:
            since = datetime.fromisoformat(fields["since"]) if "since" in fields else now()
            apns.gone(str(fields["token"]), since)
        except (KeyError, TypeError, ValueError) as error:
            raise bad_request(f"token and perhaps since are wanted: {error}") from error
        return web.Response(status=204)

    async def deafen(_: web.Request) -> web.Response:
        apns.deafen()
        return web.Response(status=204)

    app.router.add_post("/apns/gone", apns_gone)
    app.router.add_post("/apns/deafen", deafen)
    return app


def write_received(received: Received) -> dict[str, object]:
    """Write one request as JSON; the body as text."""
    return received._asdict() | {"headers": dict(received.headers), "body": received.body.decode(errors="replace")}


def _add(
    app: web.Application,
    prefix: str,
    simulator: Simulator,
    kinds: Mapping[str, type[Any]],
    write: Callable[[Received], dict[str, object]] = write_received,
) -> None:
    async def received(request: web.Request) -> web.Response:
        count = int(request.query.get("at_least", "0"))
        within = min(LONGEST, float(request.query.get("within", "10")))
        try:
            requests = await simulator.wait(count, within)
        except TimeoutError:
            requests = list(simulator.received)
        return web.json_response({"received": [write(each) for each in requests]})

    async def forget(_: web.Request) -> web.Response:
        simulator.received.clear()
        return web.Response(status=204)

    async def fail(request: web.Request) -> web.Response:
        simulator.fail(*read_failure(await read_fields(request), kinds))
        return web.Response(status=204)

    async def mix(request: web.Request) -> web.Response:
        simulator.mix(read_mixture(await read_fields(request), kinds))
        return web.Response(status=204)

    async def drop(_: web.Request) -> web.Response:
        simulator.drop()
        return web.Response(status=204)

    async def heal(_: web.Request) -> web.Response:
        simulator.heal()
        return web.Response(status=204)

    app.router.add_get(f"{prefix}/received", received)
    app.router.add_delete(f"{prefix}/received", forget)
    app.router.add_post(f"{prefix}/fail", fail)
    app.router.add_post(f"{prefix}/mix", mix)
    app.router.add_post(f"{prefix}/drop", drop)
    app.router.add_post(f"{prefix}/heal", heal)


def _add_listener(app: web.Application, prefix: str, simulator: Listener) -> None:
    async def leave_idle(_: web.Request) -> web.Response:
        simulator.leave_idle()
        return web.Response(status=204)

    async def fail_handshakes(_: web.Request) -> web.Response:
        simulator.fail_handshakes()
        return web.Response(status=204)

    app.router.add_post(f"{prefix}/leave-idle", leave_idle)
    app.router.add_post(f"{prefix}/fail-handshakes", fail_handshakes)
