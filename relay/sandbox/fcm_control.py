"""Own the routes that control what only the FCM simulator has: access tokens and keys."""

from aiohttp import web

from relay.sandbox.control_json import bad_request, read_fields
from relay.sandbox.fcm import FcmSimulator
from relay.sandbox.script_json import read_failure
from relay.sandbox.scripts import FCM_KINDS


def add_fcm(app: web.Application, fcm: FcmSimulator) -> None:
    """Add the routes that only FCM has."""

    async def gone(request: web.Request) -> web.Response:
        fields = await read_fields(request)
        if not isinstance(fields.get("token"), str):
            raise bad_request("token is wanted")
        fcm.gone(fields["token"])
        return web.Response(status=204)

    async def forget_tokens(_: web.Request) -> web.Response:
        fcm.forget_tokens()
        return web.Response(status=204)

    async def fail_tokens(request: web.Request) -> web.Response:
        fcm.fail_tokens(*read_failure(await read_fields(request), FCM_KINDS))
        return web.Response(status=204)

    async def rotate(_: web.Request) -> web.Response:
        return web.json_response(fcm.rotate())

    app.router.add_post("/fcm/gone", gone)
    app.router.add_post("/fcm/forget-tokens", forget_tokens)
    app.router.add_post("/fcm/fail-tokens", fail_tokens)
    app.router.add_post("/fcm/rotate", rotate)
