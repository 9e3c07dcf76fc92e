"""Own the routes that control what only the simulator of a push service has: phones that subscribe and read."""

from aiohttp import web

from relay.sandbox.control_json import bad_request, read_fields
from relay.sandbox.scripts import Received
from relay.sandbox.webpush import WebPushSimulator
from relay.sandbox.webpush_rules import Unreadable, encode


def add_webpush(app: web.Application, simulator: WebPushSimulator) -> None:
    """Add the routes that only WebPush has."""

    async def subscribe(request: web.Request) -> web.Response:
        fields = await read_fields(request) if request.can_read_body else {}
        return web.json_response(simulator.subscribe(str(fields.get("vapid_public_key", ""))), status=201)

    async def gone(request: web.Request) -> web.Response:
        fields = await read_fields(request)
        try:
            simulator.gone(str(fields.get("endpoint")))
        except KeyError as error:
            raise bad_request("the endpoint of a subscription is wanted") from error
        return web.Response(status=204)

    app.router.add_post("/webpush/subscriptions", subscribe)
    app.router.add_post("/webpush/gone", gone)


def write_opened(simulator: WebPushSimulator, received: Received) -> dict[str, object]:
    """Write of one push the body as base64url, and what the phone reads in it, or null."""
    try:
        message = simulator.open(received).decode(errors="replace")
    except (Unreadable, KeyError):
        message = None
    return {"body": encode(received.body), "message": message}
