from aiohttp import web

from relay.api.app import Limits, RegistrationApi
from relay.api.operations import OPERATIONS
from tests.fakes.relay_api import ApiWorld


def served(router: web.UrlDispatcher) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


def test_every_route_is_an_operation_and_every_operation_a_route() -> None:
    """A route beside the table is missing in the OpenAPI document: give it a row in relay/api/operations.py."""
    world = ApiWorld()
    app = RegistrationApi(world.service, world.receipts, Limits(), world.tokens, world.capabilities).app

    assert served(app.router) == {(row.method, row.path) for row in OPERATIONS}
