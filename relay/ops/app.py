"""The routes of the ops listener: /livez, /readyz, /healthz, /metrics, the admin API and the console; plain HTTP."""

from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Final, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from relay.http import kinds, problems
from relay.http.addresses import read_address
from relay.ops.admin_api import AdminApi
from relay.ops.health import Health, PartState, Report, worst
from relay.ops.metrics import CONTENT_TYPE, Metrics

ELSEWHERE: Final = kinds.Kind(HTTPStatus.MISDIRECTED_REQUEST, "unknown-host", "The listener has another name")


class Routes(Protocol):
    """A part of the listener with routes of its own."""

    def add_to(self, app: web.Application) -> None:
        """Add them."""


def create_ops_app(
    health: Health,
    metrics: Metrics,
    hosts: Collection[str] = (),
    admin: AdminApi | None = None,
    console: Routes | None = None,
) -> web.Application:
    """Return the application; it holds no state of its own.

    It answers to the names of loopback, to the address that it was reached at, and to `hosts`. Without `admin` there is
    no admin API, without `console` no console.
    """

    async def livez(_: web.Request) -> web.Response:
        """Answer 200: that this arrives shows that the event loop runs."""
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        """Answer 200 if the process can do its job, else 503."""
        return web.Response(text="ready\n") if health.ready else web.Response(text="not ready\n", status=503)

    async def healthz(_: web.Request) -> web.Response:
        """Answer with the state of each part; 503 while one has failed."""
        reports = health.review()
        state = worst(reports)
        body = {"state": state.value, "parts": [_part(report) for report in reports]}
        return web.json_response(body, status=503 if state is PartState.FAILED else 200)

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application(middlewares=[_answering_to(hosts)])
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", exposition)
    if admin is not None:
        admin.add_to(app)
    if console is not None:
        console.add_to(app)
    return app


def _part(report: Report) -> dict[str, Any]:
    return {
        "part": report.part,
        "state": report.finding.state.value,
        "since": report.since.isoformat(timespec="seconds"),
        "reason": report.finding.reason,
        "remedy": report.finding.remedy,
    }


def _answering_to(hosts: Collection[str]) -> Middleware:
    """Refuse requests for other hosts: a page of a stranger may have its own name resolved to this address."""
    names = {"localhost", *(host.lower() for host in hosts)}

    @web.middleware
    async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = request.headers.getall(hdrs.HOST, [])
        # No browser leaves the header out; probes that speak HTTP/1.0 do.
        if not asked or (len(asked) == 1 and _own(_name(asked[0]), request, names)):
            return await handler(request)
        return problems.document(ELSEWHERE, "the header Host names none of this listener; see ops.hosts in relay.toml")

    return answering


def _name(host: str) -> str:
    """Return the host of the header Host, without its port."""
    name, bracket, _ = host.strip().removeprefix("[").partition("]")
    return (name if bracket else name.rpartition(":")[0] or name).rstrip(".").lower()


def _own(name: str, request: web.Request, names: Collection[str]) -> bool:
    address = read_address(name)
    if address is None:
        return name in names
    reached = None if request.transport is None else request.transport.get_extra_info("sockname")
    return address.is_loopback or name in names or (reached is not None and address == read_address(str(reached[0])))
