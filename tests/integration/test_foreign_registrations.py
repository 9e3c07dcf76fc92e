"""No operation on a registration works with the secret of another one, nor without any: the table names them all."""

import pytest

from relay.api.operations import OPERATIONS, Operation
from tests.fakes.relay_api import APNS_APP, judging
from tests.integration.test_api import Api, Json, serving, wish

Access = tuple[str, str]
"""Id and secret."""
ANN: Access = ("Aq0zM3yX8sT1bN6kR4wJcLhP", "2r5uGvTjJ1rN4QkO0mWc7yYxVb8eLhZqPpTs3aDf6gI")
BEN: Access = ("Bq0zM3yX8sT1bN6kR4wJcLhP", "9r5uGvTjJ1rN4QkO0mWc7yYxVb8eLhZqPpTs3aDf6gI")
OPENED = [row for row in OPERATIONS if row.secret]
BODIES = {
    "put": wish(mailbox="ben@example.com"),
    "change": {"device": {"token": "be" * 32}, "locale": "fr"},
}


def test_every_operation_on_a_registration_demands_its_secret() -> None:
    assert [row.name for row in OPERATIONS if "{id}" in row.path] == [row.name for row in OPENED]


@pytest.mark.parametrize("row", OPENED, ids=lambda row: row.name)
@pytest.mark.parametrize("shown", [None, BEN[1], ANN[1][:-1] + "0", ANN[1].upper(), "guess", ""])
async def test_the_registration_of_ann_opens_with_her_secret_only(row: Operation, shown: str | None) -> None:
    async with serving() as api:
        await made(api, "ann@example.com", "a1" * 32, ANN)
        await made(api, "ben@example.com", "be" * 32, BEN)
        before, marks = await looked_at(api, ANN), list(api.world.store.marks)

        path = row.path.replace("{id}", ANN[0]).replace("{test}", "kq3Zp0aWm2Xc7RtY")
        assert "{" not in path
        body = None if row.body is None else BODIES.get(row.name, row.body_example)
        response, answer = await api.call(row.method, path, body, shown)

        # A secret that no app can have made is refused as such by PUT, whether there is a registration or not.
        weak = row.name == "put" and shown == "guess"
        assert (response.status, answer["code"]) == ((400, "invalid-request") if weak else (401, "not-authorized"))
        assert await looked_at(api, ANN) == before
        assert api.world.store.marks == marks
        assert len(api.world.store.registrations) == 2


async def made(api: Api, mailbox: str, token: str, access: Access) -> None:
    """Register with an id and a secret of the app."""
    device = {"platform": "apns", "app": APNS_APP, "token": token}
    async with judging(api.world):
        path = f"/v1/registrations/{access[0]}"
        response, _ = await api.call("PUT", path, wish(mailbox=mailbox, device=device), access[1])
    assert response.status == 201


async def looked_at(api: Api, access: Access) -> Json:
    """Return a registration as its own app sees it."""
    response, seen = await api.call("GET", f"/v1/registrations/{access[0]}", secret=access[1])
    assert response.status == 200
    return seen
