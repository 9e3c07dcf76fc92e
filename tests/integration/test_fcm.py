import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from aiohttp import web

from relay.domain.fcm_device import FcmDevice
from relay.domain.model import Mark, Platform
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.http.listeners import open_listener
from relay.process.clock import now
from relay.push.egress.leaving import Unwritable, held
from relay.push.fcm.config import FcmConfig
from relay.push.fcm.sender import FcmSender
from relay.sandbox.certificates import ThrowAwayCa, make_service_account
from relay.sandbox.scripts import Answer, Close, Received, Stall
from tests.fakes.egress import MemoryEgress
from tests.integration.push_world import failure, fcm, fcm_account, fcm_config, silent_server
from tests.keys import rsa_key
from tests.ports import free_port
from tests.unit.relay.push.pushes import due_push

TOKEN = "invented-device_token:APA91b"


async def send_all(sender: FcmSender, count: int, first: int = 1) -> list[Outcome]:
    return await asyncio.gather(*(sender.send(due_push(number)) for number in range(first, first + count)))


@pytest.mark.both_loops
async def test_a_push_arrives_exactly_as_documented(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        outcome = await sender.send(due_push(platform=Platform.FCM, device_token=TOKEN))

        received = simulator.received[0]
        assert isinstance(outcome, Delivered)
        assert outcome.provider_id.startswith("projects/relay-sandbox/messages/")
        assert json.loads(received.body) == {
            "message": {
                "token": TOKEN,
                "data": {
                    "v": "1",
                    "registration": "registration-1",
                    "kind": "new-items",
                    "class": "email",
                    "count": "2",
                },
                "android": {"priority": "HIGH", "collapse_key": "registration-1.items", "ttl": "259200s"},
            },
            "validate_only": False,
        }
        assert received.headers["user-agent"] == "push-relay"


async def test_a_push_to_a_fid_arrives_in_its_own_field_and_is_logged_without_it(tmp_path: Path) -> None:
    fid = FcmDevice.of_fid("cAnInventedFid_0123-ab")
    async with fcm(tmp_path) as (simulator, sender):
        assert isinstance(await sender.send(due_push(device_token=fid.device_token)), Delivered)

        received = simulator.received[0]
        assert received.device_token == fid.name
        message = json.loads(received.body)["message"]
        assert (message["fid"], "token" in message) == (fid.name, False)
        assert fid.name not in json.dumps(message["data"])


async def test_an_unregistered_fid_is_gone_and_one_of_another_form_is_refused_alone(tmp_path: Path) -> None:
    fid, odd = FcmDevice.of_fid("cAnInventedFid_0123-ab"), FcmDevice.of_fid("0123456789abcdef")
    async with fcm(tmp_path) as (simulator, sender):
        simulator.gone(fid.name)

        assert await sender.send(due_push(1, device_token=fid.device_token)) == TokenGone("UNREGISTERED")
        refused = await sender.send(due_push(2, device_token=odd.device_token))
        assert isinstance(refused, Refused)
        assert (refused.reason, refused.channel) == ("INVALID_ARGUMENT", False)


async def test_a_phone_that_moves_from_its_token_to_its_fid_keeps_its_budget(tmp_path: Path) -> None:
    fid = FcmDevice.of_fid("cAnInventedFid_0123-ab")
    async with fcm(tmp_path, high_priority_per_hour=1) as (simulator, sender):
        await sender.send(due_push(device_token=f"{fid.name}:APA91b"))
        await sender.send(due_push(device_token=fid.device_token))

        priorities = [json.loads(each.body)["message"]["android"]["priority"] for each in simulator.received]
        assert priorities == ["HIGH", "NORMAL"]


async def test_several_hundred_pushes_at_once_share_one_access_token(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        outcomes = await send_all(sender, 300)

        assert all(isinstance(outcome, Delivered) for outcome in outcomes)
        assert len({received.device_token for received in simulator.received}) == 300
        assert simulator.tokens.made == 1


async def test_an_access_token_that_google_forgot_is_renewed_and_the_push_sent_again(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.forget_tokens()

        outcomes = await send_all(sender, 20, first=2)

        assert all(isinstance(outcome, Delivered) for outcome in outcomes)
        assert simulator.tokens.made == 2


async def test_an_access_token_refused_twice_is_a_fault_of_the_channel_and_ends_there(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        simulator.fail(Answer(401, "UNAUTHENTICATED"), 0)

        outcome = await sender.send(due_push())

        assert isinstance(outcome, Refused)
        assert outcome.channel
        assert "fcm.service_account_file" in outcome.remedy
        assert len(simulator.received) == 2


async def test_only_an_unregistered_token_is_gone(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        simulator.gone(due_push(1).device_token)
        simulator.mismatch(due_push(2).device_token)

        assert await sender.send(due_push(1)) == TokenGone("UNREGISTERED")
        mismatch = await sender.send(due_push(2))
        assert isinstance(mismatch, Refused)
        assert (mismatch.reason, mismatch.channel) == ("SENDER_ID_MISMATCH", False)
        assert isinstance(await sender.send(due_push(3)), Delivered)


@pytest.mark.parametrize(
    ("failure", "reason", "after"),
    [
        (Answer(429, "QUOTA_EXCEEDED", "17"), "QUOTA_EXCEEDED", 17.0),
        (Answer(429, "QUOTA_EXCEEDED"), "QUOTA_EXCEEDED", 60.0),
        (Answer(503, "UNAVAILABLE"), "UNAVAILABLE", None),
        (Answer(503, "UNAVAILABLE", "4"), "UNAVAILABLE", 4.0),
        (Answer(500, "INTERNAL"), "INTERNAL", None),
    ],
)
async def test_passing_faults_are_tried_later_and_never_slept_through(
    tmp_path: Path, failure: Answer, reason: str, after: float | None
) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(failure)

        outcome = await sender.send(due_push(2))

        assert isinstance(outcome, RetryLater)
        assert (outcome.reason, outcome.after, outcome.provider) == (reason, after, True)
        assert len(simulator.received) == 2
        assert isinstance(await sender.send(due_push(3)), Delivered)


async def test_a_device_token_that_fcm_rejects_is_refused_alone(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (_, sender):
        outcome = await sender.send(due_push(device_token=""))

        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == ("INVALID_ARGUMENT", False)


async def test_a_phone_is_woken_as_often_as_its_budget_allows_and_gets_every_push(tmp_path: Path) -> None:
    async with fcm(tmp_path, high_priority_per_hour=3) as (simulator, sender):
        simulator.fail(Answer(503, "UNAVAILABLE"))
        outcomes = [await sender.send(due_push(1)) for _ in range(5)]
        outcomes.append(await sender.send(due_push(1, mark=Mark.ATTENTION)))
        outcomes.append(await sender.send(due_push(2)))

        # The first was not taken, so it cost nothing.
        assert [priority(each) for each in simulator.received] == ["HIGH"] * 4 + ["NORMAL"] + ["HIGH"] * 2
        assert [each.status for each in simulator.received] == [503] + [200] * 6
        lowered = [outcome.lowered for outcome in outcomes if isinstance(outcome, Delivered)]
        assert lowered == [False] * 3 + [True] + [False] * 2


def priority(received: Received) -> str:
    return str(json.loads(received.body)["message"]["android"]["priority"])


async def test_a_project_that_google_does_not_know_costs_no_registration(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, _):
        document = simulator.service_account() | {"project_id": "another"}
        (tmp_path / "another.json").write_text(json.dumps(document))
        config = replace(fcm_config(tmp_path, simulator), accounts=(fcm_account(tmp_path / "another.json"),))
        async with FcmSender(config, now, Random(1), MemoryEgress()) as sender:
            outcome = await sender.send(due_push())
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == ("NOT_FOUND", True)


async def test_a_key_that_google_does_not_know_is_a_fault_of_the_channel(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, _):
        document, _ = make_service_account("relay-sandbox", simulator.token_uri, rsa_key(1))
        (tmp_path / "forged.json").write_text(json.dumps(document))
        config = replace(fcm_config(tmp_path, simulator), accounts=(fcm_account(tmp_path / "forged.json"),))
        async with FcmSender(config, now, Random(1), MemoryEgress()) as sender:
            outcomes = await send_all(sender, 5)
        assert {outcome.reason for outcome in outcomes if isinstance(outcome, Refused) and outcome.channel} == {
            "token-refused: invalid_grant"
        }
        assert simulator.received == []


async def test_a_token_endpoint_that_is_down_means_to_try_later(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        simulator.fail_tokens(Answer(503, "temporarily_unavailable"), 0)

        outcome = await sender.send(due_push())

        assert isinstance(outcome, RetryLater)
        assert (outcome.reason, outcome.provider) == ("token-refused: temporarily_unavailable", True)


@pytest.mark.parametrize("status", [302, 307, 308])
async def test_the_signed_assertion_follows_no_redirect(tmp_path: Path, status: int) -> None:
    seen: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", redirect)
    async with open_listener(app, "127.0.0.1", 0) as port:
        document, _ = make_service_account("relay-sandbox", f"http://localhost:{port}/token", rsa_key())
        (tmp_path / "fcm.json").write_text(json.dumps(document))
        config = FcmConfig((fcm_account(tmp_path / "fcm.json"),), endpoint=f"http://localhost:{port}")
        async with FcmSender(config, now, Random(1), MemoryEgress()) as sender:
            outcome = await sender.send(due_push())
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == (f"token-refused: http-{status}", True)
    assert seen == ["/token"]


@pytest.mark.both_loops
async def test_a_cut_connection_is_tried_later_and_the_next_push_goes_through(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        simulator.fail(Close())

        assert isinstance(await sender.send(due_push(1)), RetryLater)
        assert isinstance(await sender.send(due_push(2)), Delivered)


async def test_a_stalled_server_costs_the_time_limit_and_harms_no_other_push(tmp_path: Path) -> None:
    async with fcm(tmp_path, time_limit=1.5) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Stall())
        began = time.monotonic()

        outcomes = await send_all(sender, 20, first=2)

        assert time.monotonic() - began < 5.0
        assert list(map(failure, outcomes)).count("timed-out") == 1
        assert sum(isinstance(outcome, Delivered) for outcome in outcomes) == 19


async def test_a_server_that_never_shakes_hands_costs_the_time_limit(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, _), silent_server() as port:
        config = replace(fcm_config(tmp_path, simulator), endpoint=f"https://127.0.0.1:{port}", time_limit=1.0)
        async with asyncio.timeout(5.0), FcmSender(config, now, Random(1), MemoryEgress()) as sender:
            assert set(map(failure, await send_all(sender, 5))) == {"timed-out"}


async def test_a_server_that_does_not_listen_is_tried_again_later(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, _):
        config = replace(fcm_config(tmp_path, simulator), endpoint=f"https://127.0.0.1:{free_port()}")
        async with FcmSender(config, now, Random(1), MemoryEgress()) as sender:
            assert failure(await sender.send(due_push())) == "connection-refused"


async def test_a_token_endpoint_of_an_unknown_ca_names_the_setting(tmp_path: Path) -> None:
    ThrowAwayCa("Another CA").write_ca(tmp_path / "other.pem")
    async with fcm(tmp_path, ca_file=tmp_path / "other.pem") as (_, sender):
        assert_names_the_ca(await sender.send(due_push()))


async def test_an_fcm_endpoint_of_an_unknown_ca_names_the_setting(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    async with fcm(tmp_path) as (simulator, _), fcm(folder) as (stranger, _):
        sender = FcmSender(
            replace(fcm_config(tmp_path, simulator), endpoint=stranger.url), now, Random(1), MemoryEgress()
        )
        assert_names_the_ca(await sender.send(due_push()))
        await sender.close()


def assert_names_the_ca(outcome: Outcome) -> None:
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == ("certificate-not-trusted", True)
    assert "fcm.ca_file" in outcome.remedy


@pytest.mark.parametrize("text", ["", "{}", '{"type": "service_account"}', "[]"])
def test_a_file_that_is_no_service_account_is_refused_at_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "account.json").write_text(text)

    with pytest.raises(ValueError, match=r".+"):
        FcmSender(FcmConfig((fcm_account(tmp_path / "account.json"),)), now, Random(1), MemoryEgress())


def test_a_service_account_without_a_project_is_refused_at_start(tmp_path: Path) -> None:
    document, _ = make_service_account("p", "https://127.0.0.1:1/token", rsa_key())
    del document["project_id"]
    (tmp_path / "account.json").write_text(json.dumps(document))

    with pytest.raises(ValueError, match="project_id"):
        FcmSender(FcmConfig((fcm_account(tmp_path / "account.json"),)), now, Random(1), MemoryEgress())


async def test_a_push_that_cannot_be_logged_is_not_sent(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, _):
        async with FcmSender(fcm_config(tmp_path, simulator), now, Random(1), MemoryEgress(full=True)) as sender:
            outcome = await sender.send(due_push(platform=Platform.FCM))
        assert outcome == held(Unwritable("No space left on device"))
        assert simulator.received == []


async def test_a_push_that_is_only_validated_is_not_sent(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        assert isinstance(await sender.validate(due_push(device_token=TOKEN)), Delivered)
        simulator.gone(TOKEN)
        assert isinstance(await sender.validate(due_push(device_token=TOKEN)), TokenGone)

        assert simulator.received == []
