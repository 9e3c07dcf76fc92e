"""The control listener of the simulated EAS server, over HTTP as another process uses it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from eas_watcher.names import DeviceId, ProtocolVersion
from relay.sandbox.eas.control import control_app
from relay.sandbox.eas.failures import AnswerHttp, Cut
from relay.sandbox.eas.requests import EasRequest
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator

ANN = "ann@example.com"

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def simulator() -> AsyncIterator[EasSimulator]:
    async with open_eas_simulator(tls=None) as simulator:
        yield simulator


@pytest.fixture
async def client(simulator: EasSimulator) -> AsyncIterator[Client]:
    async with TestClient(TestServer(control_app(simulator))) as client:
        yield client


async def post(client: Client, path: str, body: object, status: int = 204) -> dict[str, Any]:
    async with client.post(path, json=body) as response:
        assert response.status == status, await response.text()
        found: dict[str, Any] = await response.json(content_type=None) if status != 204 else {}
        assert status < 400 or response.content_type == "application/problem+json"
        return found


async def get(client: Client, path: str) -> dict[str, Any]:
    async with client.get(path) as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


async def test_a_mailbox_lives_by_requests_alone(client: Client) -> None:
    await post(client, "/mailboxes", {"user": ANN, "password": "secret"}, 201)
    mail = {"user": ANN, "subject": "Minutes", "sender": "ben@example.com", "body": "See you."}
    first, second = [(await post(client, "/mail", mail, 201))["server_id"] for _ in range(2)]
    event = (await post(client, "/mail", {"user": ANN, "class": "calendar"}, 201))["server_id"]
    folder = (await post(client, "/folders", {"user": ANN, "name": "Projects"}, 201))["folder"]
    filed = (await post(client, "/mail", {"user": ANN, "folder": folder, "read": True}, 201))["server_id"]
    await post(client, "/read", {"user": ANN, "server_id": first})
    await post(client, "/delete", {"user": ANN, "server_id": second})
    told = await get(client, f"/mailboxes/{ANN}")

    items = {item["server_id"]: item["read"] for each in told["folders"] for item in each["items"]}
    assert items == {first: True, event: False, filed: True}
    assert (told["held"], told["overlaps"], told["refusals"], told["log"]) == (0, 0, 0, [])
    await post(client, "/folders/remove", {"user": ANN, "folder": folder})
    assert folder not in {each["id"] for each in (await get(client, f"/mailboxes/{ANN}"))["folders"]}


async def test_one_order_delivers_to_many_mailboxes_at_once(client: Client) -> None:
    users = [f"user{number}@example.com" for number in range(150)]
    for user in users:
        await post(client, "/mailboxes", {"user": user, "password": "secret"}, 201)

    assert await post(client, "/mails", {"users": users, "read": True}, 201) == {"delivered": 150}
    for user in (users[0], users[99], users[-1]):
        told = await get(client, f"/mailboxes/{user}")
        assert [item["read"] for folder in told["folders"] for item in folder["items"]] == [True]
    await post(client, "/mails", {"users": ["nobody@example.com"]}, 404)


async def test_the_state_counts_everything(client: Client, simulator: EasSimulator) -> None:
    simulator.add_mailbox(ANN, "secret")
    assert not simulator.admit(ANN, "wrong")
    simulator.complain(ANN, "Sync", "a fault")
    simulator.records.note(ANN, "Sync", 1.5)

    assert await get(client, "/state") == {
        "url": simulator.url,
        "mailboxes": 1,
        "held": 0,
        "max_held": 0,
        "protocols": {
            "http/1.1": {"connections": 0, "held": 0},
            "h2": {
                "connections": 0,
                "held": 0,
                "accepted": 0,
                "streams": 100,
                "resets": 0,
                "violations": 0,
                "pings": 0,
            },
        },
        "queued": 0,
        "max_at_once": 0,
        "requests": {"Sync": 1},
        "refusals": {ANN: 1},
        "overlaps": {},
        "complaints": [{"user": ANN, "command": "Sync", "text": "a fault"}],
    }
    assert (await get(client, f"/mailboxes/{ANN}"))["log"] == [{"command": "Sync", "moment": 1.5}]


async def test_failures_are_planned_and_forgotten(client: Client, simulator: EasSimulator) -> None:
    await post(client, "/fail", {"user": ANN, "command": "Sync", "failure": {"kind": "cut", "applied": True}})
    throttle = {"kind": "http", "status": 503, "headers": {"Retry-After": "1.5"}}
    await post(client, "/fail", {"failure": throttle, "times": 2})

    assert simulator.failures.take(ANN, "Sync") == Cut(applied=True)
    assert simulator.failures.take("ben", "Ping") == AnswerHttp(503, {"Retry-After": "1.5"})
    async with client.delete("/fail") as response:
        assert response.status == 204
    assert simulator.failures.take("ben", "Ping") is None


async def test_the_backend_breaks_and_comes_back(client: Client, simulator: EasSimulator) -> None:
    await post(client, "/backend", {"broken": True})
    assert simulator.backend_down
    await post(client, "/restart", {})
    await post(client, "/backend", {"broken": False})
    assert not simulator.backend_down


@pytest.mark.parametrize(
    ("action", "attribute", "expected"),
    [
        ("lose-state", "lost", True),
        ("refresh-policy", "refresh_due", True),
        ("forget-policy", "policy_key", None),
        ("wipe", "wipe", "RemoteWipe"),
        ("wipe-account", "wipe", "AccountOnlyRemoteWipe"),
        ("block", "blocked", True),
        ("unblock", "blocked", False),
        ("quarantine", "quarantined", True),
        ("release", "quarantined", False),
    ],
)
async def test_devices_are_ordered_about(
    client: Client, simulator: EasSimulator, action: str, attribute: str, expected: object
) -> None:
    simulator.add_mailbox(ANN, "secret")
    device = simulator.session(ANN, EasRequest("Sync", DeviceId("D1"), ProtocolVersion.V16_1, None)).device
    device.policy_key, device.blocked, device.quarantined = "7", expected is not True, expected is not True
    await post(client, "/devices", {"user": ANN, "action": action})

    assert getattr(device, attribute) == expected


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/mail", {"user": "nobody"}, 404, "there is no nobody"),
        ("/read", {"user": ANN, "server_id": "5:99"}, 404, "there is no 5:99"),
        ("/delete", {"user": ANN, "server_id": "77:1"}, 404, "there is no 77:1"),
        ("/folders/remove", {"user": ANN, "folder": "77"}, 404, "there is no 77"),
        ("/devices", {"user": "nobody", "action": "wipe"}, 404, "there is no nobody"),
        ("/devices", {"user": ANN, "action": "dance"}, 422, "action: "),
        ("/mail", {"user": ANN, "subjekt": "Minutes"}, 422, "subjekt: "),
        ("/mail", [], 422, "body: "),
        ("/fail", {"failure": {"kind": "cut", "second": 1}}, 422, "a failure of this kind has no second"),
        ("/fail", {"failure": {"kind": "flood"}}, 422, "body: "),
        ("/nowhere", {}, 404, "Not Found"),
        ("/state", {}, 405, "Method Not Allowed"),
    ],
)
async def test_what_goes_wrong_is_a_problem_document(
    client: Client, simulator: EasSimulator, path: str, body: object, status: int, detail: str
) -> None:
    simulator.add_mailbox(ANN, "secret")
    problem = await post(client, path, body, status)

    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert problem["detail"].startswith(detail)


async def test_the_number_of_workers_can_be_changed(client: Client, simulator: EasSimulator) -> None:
    assert simulator.workers.number is None
    await post(client, "/workers", {"workers": 5})
    assert simulator.workers.number == 5
    await post(client, "/workers", {"workers": None})
    assert simulator.workers.number is None


async def test_a_forced_hold_can_be_set_and_ended(client: Client, simulator: EasSimulator) -> None:
    await post(client, "/hold", {"seconds": 60})
    assert simulator.pings.forced == 60.0
    await post(client, "/hold", {"seconds": None})
    assert simulator.pings.forced is None
    problem = await post(client, "/hold", {"seconds": 0}, 422)
    assert problem["detail"].startswith("seconds: ")
