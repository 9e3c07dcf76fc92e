"""The control routes of the push simulators, so that another process can script failures and read what was received.

| request below /apns, /apns-sandbox, /fcm and /webpush | JSON body | does |
| --- | --- | --- |
| GET received?at_least=N&within=SECONDS | | returns {"received": [...]}, after waiting until there are N |
| DELETE received | | forgets them |
| POST gone | token, since (WebPush: endpoint, status) | makes a device token invalid |
| POST fail | kind, times, fields of the failure | lets the next requests fail |
| POST mix | seed, failures: kind, share, fields of the failure | lets requests fail at random |
| POST drop | | cuts all connections |
| POST heal | | ends all failures |
| POST leave-idle, fail-handshakes (APNs, FCM) | | ends idle connections; lets TLS fail |
| POST deafen (APNs) | | sends nothing on new connections |
| POST devices (APNs) | token | returns a device token, new or this one, that the other environment refuses |
| POST fail-tokens (FCM) | as fail | lets the next requests for access tokens fail |
| POST forget-tokens (FCM) | | refuses all access tokens |
| POST rotate (FCM) | | returns the service account with another key |
| POST subscriptions (WebPush) | vapid_public_key | returns the subscription of a new phone |

In `received`, pushes of WebPush also have `message`, the text that the phone reads. Errors are problem documents
[RFC 9457].
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.process.clock import now
from relay.sandbox.apns import ApnsSimulator
from relay.sandbox.fcm import FcmSimulator
from relay.sandbox.push_simulator import PushSimulator
from relay.sandbox.scripts import APNS_KINDS, FCM_KINDS, KINDS, Received, read_failure, read_mixture
from relay.sandbox.webpush import WebPushSimulator
from relay.sandbox.webpush_rules import Unreadable, encode

LONGEST: Final = 60.0  # seconds that a request may wait for pushes
NO_CONTENT: Final = 204
F = TypeVar("F")
Route = Callable[[web.Request], Awaitable[web.Response]]


def push_control_app(
    apns: ApnsSimulator, fcm: FcmSimulator, webpush: WebPushSimulator, apns_sandbox: ApnsSimulator | None = None
) -> web.Application:
    """Return the web application that controls all push simulators; `apns_sandbox` is APNs' other environment."""
    app = web.Application(middlewares=[_answer_faults])
    _add_common(app, "/fcm", fcm, FCM_KINDS)
    _add_common(app, "/webpush", webpush, KINDS, lambda received: _write_message(webpush, received))
    environments = {"/apns": apns} | ({} if apns_sandbox is None else {"/apns-sandbox": apns_sandbox})
    for prefix, environment in environments.items():
        _add_common(app, prefix, environment, APNS_KINDS)
        _add_apns(app, prefix, environment)
    lasting: Mapping[str, ApnsSimulator | FcmSimulator] = {**environments, "/fcm": fcm}
    for prefix, simulator in lasting.items():
        app.router.add_post(f"{prefix}/leave-idle", _calling(simulator.leave_idle))
        app.router.add_post(f"{prefix}/fail-handshakes", _calling(simulator.fail_handshakes))
    _add_fcm(app, fcm)
    _add_webpush(app, webpush)
    return app


def _add_common(
    app: web.Application,
    prefix: str,
    simulator: PushSimulator[F],
    kinds: Mapping[str, type[F]],
    more: Callable[[Received], dict[str, object]] = lambda _: {},
) -> None:
    """Add the routes of every simulator; `more` returns further fields of a request in `received`."""

    async def received(request: web.Request) -> web.Response:
        count = int(request.query.get("at_least", "0"))
        within = min(LONGEST, float(request.query.get("within", "10")))
        try:
            requests = await simulator.wait(count, within)
        except TimeoutError:
            requests = list(simulator.received)
        return web.json_response({"received": [_write(each) | more(each) for each in requests]})

    async def mix(request: web.Request) -> web.Response:
        simulator.mix(read_mixture(await _read_fields(request), kinds))
        return web.Response(status=NO_CONTENT)

    app.router.add_get(f"{prefix}/received", received)
    app.router.add_delete(f"{prefix}/received", _calling(simulator.received.clear))
    app.router.add_post(f"{prefix}/fail", _failing(simulator.fail, kinds))
    app.router.add_post(f"{prefix}/mix", mix)
    app.router.add_post(f"{prefix}/drop", _calling(simulator.drop))
    app.router.add_post(f"{prefix}/heal", _calling(simulator.heal))


def _add_apns(app: web.Application, prefix: str, apns: ApnsSimulator) -> None:
    async def gone(request: web.Request) -> web.Response:
        fields = await _read_fields(request)
        try:
            since = datetime.fromisoformat(fields["since"]) if "since" in fields else now()
            apns.gone(str(fields["token"]), since)
        except (KeyError, TypeError, ValueError) as error:
            raise _bad_request(f"token and perhaps since are wanted: {error}") from error
        return web.Response(status=NO_CONTENT)

    async def issue(request: web.Request) -> web.Response:
        fields = await _read_fields(request) if request.can_read_body else {}
        return web.json_response({"token": apns.issue(str(fields.get("token", "")))}, status=201)

    app.router.add_post(f"{prefix}/gone", gone)
    app.router.add_post(f"{prefix}/deafen", _calling(apns.deafen))
    app.router.add_post(f"{prefix}/devices", issue)


def _add_fcm(app: web.Application, fcm: FcmSimulator) -> None:
    async def gone(request: web.Request) -> web.Response:
        fields = await _read_fields(request)
        if not isinstance(fields.get("token"), str):
            raise _bad_request("token is wanted")
        fcm.gone(fields["token"])
        return web.Response(status=NO_CONTENT)

    async def rotate(_: web.Request) -> web.Response:
        return web.json_response(fcm.rotate())

    app.router.add_post("/fcm/gone", gone)
    app.router.add_post("/fcm/forget-tokens", _calling(fcm.forget_tokens))
    app.router.add_post("/fcm/fail-tokens", _failing(fcm.fail_tokens, FCM_KINDS))
    app.router.add_post("/fcm/rotate", rotate)


def _add_webpush(app: web.Application, webpush: WebPushSimulator) -> None:
    async def subscribe(request: web.Request) -> web.Response:
        fields = await _read_fields(request) if request.can_read_body else {}
        return web.json_response(webpush.subscribe(str(fields.get("vapid_public_key", ""))), status=201)

    async def gone(request: web.Request) -> web.Response:
        fields = await _read_fields(request)
        try:
            webpush.gone(str(fields.get("endpoint")), int(fields.get("status", web.HTTPGone.status_code)))
        except (KeyError, TypeError) as error:
            raise _bad_request("the endpoint of a subscription is wanted, and perhaps a status") from error
        return web.Response(status=NO_CONTENT)

    app.router.add_post("/webpush/subscriptions", subscribe)
    app.router.add_post("/webpush/gone", gone)


def _calling(action: Callable[[], None]) -> Route:
    """Return a handler that calls `action` and answers 204."""

    async def handle(_: web.Request) -> web.Response:
        action()
        return web.Response(status=NO_CONTENT)

    return handle


def _failing(fail: Callable[[F, int], None], kinds: Mapping[str, type[F]]) -> Route:
    """Return a handler that passes the failure of its body to `fail` and answers 204."""

    async def handle(request: web.Request) -> web.Response:
        fail(*read_failure(await _read_fields(request), kinds))
        return web.Response(status=NO_CONTENT)

    return handle


def _write(received: Received) -> dict[str, object]:
    """Return a request as JSON, its body as text."""
    return received._asdict() | {"headers": dict(received.headers), "body": received.body.decode(errors="replace")}


def _write_message(webpush: WebPushSimulator, received: Received) -> dict[str, object]:
    """Return the body of a push as base64url, and the text that the phone reads in it, or None."""
    try:
        message = webpush.open(received).decode(errors="replace")
    except (Unreadable, KeyError):
        message = None
    return {"body": encode(received.body), "message": message}


@web.middleware
async def _answer_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 400 with the reason to a request whose values are wrong."""
    try:
        return await handler(request)
    except ValueError as error:
        raise _bad_request(str(error)) from error


async def _read_fields(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request; raises web.HTTPBadRequest."""
    try:
        fields = await request.json()
    except ValueError as error:
        raise _bad_request("the body is no JSON") from error
    if not isinstance(fields, dict):
        raise _bad_request("the body is no JSON object")
    return fields


def _bad_request(detail: str) -> web.HTTPBadRequest:
    problem = json.dumps({"title": "Bad request", "status": 400, "detail": detail})
    return web.HTTPBadRequest(text=problem, content_type="application/problem+json")
