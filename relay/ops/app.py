"""The routes of the ops listener: /livez, /readyz, /healthz and /metrics; plain HTTP, on loopback by default."""

from typing import Any

from aiohttp import web

from relay.ops.health import Health, PartState, Report, worst
from relay.ops.metrics import CONTENT_TYPE, Metrics


def create_ops_app(health: Health, metrics: Metrics) -> web.Application:
    """Return the application; it holds no state of its own."""

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

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", exposition)
    return app


def _part(report: Report) -> dict[str, Any]:
    return {
        "part": report.part,
        "state": report.finding.state.value,
        "since": report.since.isoformat(timespec="seconds"),
        "reason": report.finding.reason,
        "remedy": report.finding.remedy,
    }
