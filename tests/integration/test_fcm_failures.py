"""Every failure script of the FCM simulator against the sender, over TLS."""

import asyncio
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.push.fcm.sender import FcmSender
from relay.sandbox.fcm import FcmSimulator
from relay.sandbox.scripts import Answer, Close, Cut, Delay, FcmFailure, Mixture, Page, Reset, Stall
from relay.security import certificates
from tests.integration.push_world import fcm
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until

DATE = "Wed, 31 Dec 2098 23:59:59 GMT"


async def send_all(sender: FcmSender, count: int, first: int = 1) -> list[Outcome]:
    return await asyncio.gather(*(sender.send(due_push(number)) for number in range(first, first + count)))


@pytest.mark.parametrize(
    ("failure", "reason", "channel"),
    [
        (Answer(403, "SENDER_ID_MISMATCH"), "SENDER_ID_MISMATCH", False),
        (Answer(400, "INVALID_ARGUMENT"), "INVALID_ARGUMENT", False),
        (Answer(400, "INVALID_ARGUMENT", field="message.token"), "INVALID_ARGUMENT", False),
        (Answer(400, "INVALID_ARGUMENT", field="message.android.ttl"), "INVALID_ARGUMENT: message.android.ttl", True),
        (Answer(401, "THIRD_PARTY_AUTH_ERROR"), "THIRD_PARTY_AUTH_ERROR", True),
        (Answer(403, "SERVICE_DISABLED"), "SERVICE_DISABLED", True),
        (Answer(403, "PERMISSION_DENIED"), "PERMISSION_DENIED", True),
        (Answer(404, "NOT_FOUND"), "NOT_FOUND", True),
        (Page(200), "not-from-fcm", True),
        (Page(302), "http-302", True),
        (Page(403), "http-403", True),
        (Page(404), "http-404", True),
    ],
)
async def test_a_lasting_fault_is_refused_and_the_next_push_goes_through(
    tmp_path: Path, failure: FcmFailure, reason: str, channel: bool
) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        simulator.fail(failure)

        outcome = await sender.send(due_push(1))

        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == (reason, channel)
        assert outcome.remedy
        assert len(simulator.received) == 1
        assert isinstance(await sender.send(due_push(2)), Delivered)


@pytest.mark.parametrize(
    ("failure", "reason", "after"),
    [
        (Answer(429, "QUOTA_EXCEEDED"), "QUOTA_EXCEEDED", 60.0),
        (Answer(429, "QUOTA_EXCEEDED", "90"), "QUOTA_EXCEEDED", 90.0),
        (Answer(429, "RATE_LIMIT_EXCEEDED"), "RATE_LIMIT_EXCEEDED", 60.0),
        (Answer(429, "RESOURCE_EXHAUSTED", DATE), "RESOURCE_EXHAUSTED", 3600.0),
        (Answer(503, "UNAVAILABLE", "4"), "UNAVAILABLE", 4.0),
        (Answer(503, "UNAVAILABLE", DATE), "UNAVAILABLE", 3600.0),
        (Answer(503, "UNAVAILABLE"), "UNAVAILABLE", None),
        (Answer(500, "INTERNAL"), "INTERNAL", None),
        (Page(502), "http-502", None),
    ],
)
async def test_a_passing_fault_concerns_fcm_as_a_whole_and_is_never_slept_through(
    tmp_path: Path, failure: FcmFailure, reason: str, after: float | None
) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(failure)

        async with asyncio.timeout(10.0):  # a sleep would be a minute or an hour, or four seconds at least
            outcome = await sender.send(due_push(2))

        assert isinstance(outcome, RetryLater)
        assert (outcome.reason, outcome.after, outcome.provider) == (reason, after, True)
        assert len(simulator.received) == 2
        assert isinstance(await sender.send(due_push(3)), Delivered)


async def test_an_expired_access_token_is_renewed_at_once(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Answer(401, "ACCESS_TOKEN_EXPIRED"))

        assert isinstance(await sender.send(due_push(2)), Delivered)
        assert [each.status for each in simulator.received] == [200, 401, 200]
        assert simulator.tokens.made == 2


@pytest.mark.parametrize("failure", [Cut(), Close(), Reset()])
async def test_a_connection_cut_before_or_in_the_middle_of_an_answer_hurts_one_push(
    tmp_path: Path, failure: FcmFailure
) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        await send_all(sender, 5)
        simulator.fail(failure)

        outcomes = await send_all(sender, 20, first=6)

        assert Counter(map(type, outcomes)) == {Delivered: 19, RetryLater: 1}
        assert isinstance(await sender.send(due_push(26)), Delivered)


async def test_a_slow_answer_is_waited_for_and_delays_no_other_push(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Delay(2.0))
        async with asyncio.TaskGroup() as tasks:
            slow = tasks.create_task(sender.send(due_push(2)))
            await until(lambda: not simulator.failing)

            assert all(isinstance(outcome, Delivered) for outcome in await send_all(sender, 20, first=3))
            assert not slow.done()
        assert isinstance(slow.result(), Delivered)


async def test_a_connection_is_used_again_and_replaced_after_google_has_closed_it(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        for number in range(1, 11):
            assert isinstance(await sender.send(due_push(number)), Delivered)
        # The access token came over it too: the simulator is both hosts.
        assert simulator.accepted == 1

        simulator.leave_idle()
        await asyncio.sleep(0.1)  # the end that the server sent must have arrived

        assert isinstance(await sender.send(due_push(11)), Delivered)
        assert simulator.accepted == 2


async def test_a_refused_handshake_is_tried_later(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.drop()
        await asyncio.sleep(0.1)
        simulator.fail_handshakes()

        outcome = await sender.send(due_push(2))

        assert isinstance(outcome, RetryLater)
        # asyncio's servers end such a connection without TLS's alert.
        assert outcome.reason.startswith(("tls-failed", "connection-lost"))
        assert outcome.provider
        simulator.heal()
        assert isinstance(await sender.send(due_push(3)), Delivered)


async def test_a_deleted_key_stops_the_channel_until_another_one_replaces_it(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        assert isinstance(await sender.send(due_push(1)), Delivered)
        account = simulator.rotate()

        refused = await sender.send(due_push(2))
        assert isinstance(refused, Refused)
        assert (refused.reason, refused.channel) == ("token-refused: invalid_grant", True)

        put(tmp_path / "account.json", json.dumps(account))
        await sender.key_files[0].look()
        assert isinstance(await sender.send(due_push(3)), Delivered)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"type": "service_account"}'])
async def test_a_bad_new_key_file_leaves_the_old_one_in_use_and_is_reported(tmp_path: Path, content: str) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        put(tmp_path / "account.json", content)
        await sender.key_files[0].look()

        assert sender.key_files[0].fault
        assert isinstance(await sender.send(due_push(1)), Delivered)

        put(tmp_path / "account.json", json.dumps(simulator.rotate()))
        await sender.key_files[0].look()
        assert not sender.key_files[0].fault
        assert isinstance(await sender.send(due_push(2)), Delivered)


async def test_a_changed_key_is_checked_once_and_not_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    really_load = serialization.load_pem_private_key

    def load(*arguments: Any, **options: Any) -> PrivateKeyTypes:
        threads.append(threading.current_thread())
        return really_load(*arguments, **options)

    async with fcm(tmp_path) as (simulator, sender):
        changed = json.dumps(simulator.rotate())
        monkeypatch.setattr(certificates, "load_pem_private_key", load)
        monkeypatch.setattr(serialization, "load_pem_private_key", load)  # as google-auth would find it
        put(tmp_path / "account.json", changed)
        await sender.key_files[0].look()
        assert isinstance(await sender.send(due_push(1)), Delivered)

    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_pushes_in_flight_end_while_the_key_changes(tmp_path: Path) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        simulator.fail_tokens(Delay(0.5))
        async with asyncio.TaskGroup() as tasks:
            early = tasks.create_task(send_all(sender, 10))
            await asyncio.sleep(0.1)
            await take_again(sender, simulator)
            late = tasks.create_task(send_all(sender, 10, first=11))
        assert all(isinstance(outcome, Delivered) for outcome in early.result() + late.result())
        assert simulator.tokens.made == 2


async def test_closing_ends_the_renewal_of_an_old_key(tmp_path: Path) -> None:
    async with fcm(tmp_path, time_limit=0.3) as (simulator, sender):
        simulator.fail_tokens(Stall(), 0)
        assert isinstance(await sender.send(due_push(1)), RetryLater)
        await take_again(sender, simulator)
        assert isinstance(await sender.send(due_push(2)), RetryLater)
    assert not [task for task in asyncio.all_tasks() if "token" in task.get_name()]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Page(200), "token-not-from-google"),
        (Page(403), "token-refused: http-403"),
        (Page(302), "token-refused: http-302"),
        (Answer(400, "invalid_scope"), "token-refused: invalid_scope"),
    ],
)
async def test_a_token_that_is_refused_stops_the_channel(tmp_path: Path, failure: FcmFailure, reason: str) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        simulator.fail_tokens(failure)

        outcome = await sender.send(due_push())

        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == (reason, True)
        assert simulator.received == []


@pytest.mark.parametrize("failure", [Cut(), Close(), Page(503), Answer(429, "rate_limit_exceeded", "7")])
async def test_a_token_endpoint_in_trouble_is_asked_again_later(tmp_path: Path, failure: FcmFailure) -> None:
    async with fcm(tmp_path) as (simulator, sender):
        simulator.fail_tokens(failure)

        assert isinstance(await sender.send(due_push()), RetryLater)
        assert simulator.received == []


async def test_a_random_mixture_leaves_no_push_without_an_outcome(tmp_path: Path) -> None:
    shares: list[tuple[FcmFailure, float]] = [
        (Answer(404, "UNREGISTERED"), 0.05),
        (Answer(403, "SENDER_ID_MISMATCH"), 0.05),
        (Answer(503, "UNAVAILABLE", "1"), 0.05),
        (Answer(401, "ACCESS_TOKEN_EXPIRED"), 0.05),
        (Page(502), 0.05),
        (Cut(), 0.05),
        (Close(), 0.05),
        (Delay(0.05), 0.05),
    ]

    async with fcm(tmp_path) as (simulator, sender):
        simulator.mix(Mixture(shares, seed=7))

        outcomes = await send_all(sender, 400)

        kinds = Counter(map(type, outcomes))
        assert kinds.keys() == {Delivered, TokenGone, Refused, RetryLater}
        assert kinds[Delivered] > 200
        taken = {each.device_token for each in simulator.received if each.status == 200}
        delivered = {due_push(n).device_token for n, out in enumerate(outcomes, 1) if isinstance(out, Delivered)}
        assert delivered <= taken
        simulator.heal()
        assert all(isinstance(outcome, Delivered) for outcome in await send_all(sender, 50, first=401))


def put(path: Path, content: str) -> None:
    """Replace a key file, as an administrator does."""
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(content)
    fresh.replace(path)


async def take_again(sender: FcmSender, simulator: FcmSimulator) -> None:
    """Make the sender adopt a file with the same content in another form, so that the old key stays valid."""
    put(sender.key_files[0].path, json.dumps(simulator.service_account(), indent=4))
    await sender.key_files[0].look()
