"""Promises 1 and 2: no word of a mail and no password appears but between the relay and the mail server."""

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import pytest

from eas_watcher.names import CollectionClass
from relay.push.egress.auditing import audit
from relay.sandbox.eas.failures import AnswerHttp, FailurePlan, Garble
from relay.sandbox.installation import APP
from relay.sandbox.scripts import Received
from tests.acceptance.test_cli import relay as relay_command
from tests.site import ANN, IPHONE, Site
from tests.waiting import SOON, until

SUBJECT: Final = "canary-subject-Xq7"
BODY: Final = "canary-body-Zk3"
SENDER: Final = "canary-sender-Pw9@example.com"
PASSWORD: Final = "canary-password-Lm5"
WRONG: Final = "canary-wrong-password-Vt2"
CONTENT: Final = (SUBJECT, BODY, SENDER)
SECRETS: Final = (PASSWORD, WRONG)


def spellings(word: str) -> Iterator[bytes]:
    """Return a word as it is, and as it looks inside base64 at each of the three offsets."""
    yield word.encode()
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + word.encode())
        yield encoded[4:-4] if offset else encoded[:-4]


def leaks(words: tuple[str, ...], content: bytes) -> list[str]:
    return [word for word in words if any(spelling in content for spelling in spellings(word))]


def raw(received: Received) -> bytes:
    return json.dumps(dict(received.headers)).encode() + received.body


def test_the_search_finds_words_in_plain_text_and_in_base64() -> None:
    credentials = base64.b64encode(f"ann@example.com:{PASSWORD}".encode())

    assert leaks((PASSWORD,), b"... " + credentials) == [PASSWORD]
    assert leaks((SUBJECT,), f"<{SUBJECT}>".encode()) == [SUBJECT]
    assert leaks((SUBJECT, PASSWORD), b"nothing here") == []


async def explained(site: Site) -> Any:
    """Return what the help desk reads, once it has the last of the events that the test makes."""

    async def whole() -> list[Any]:
        told = await relay_command("explain", ANN, "--json", "--config", str(site.sandbox.toml))
        ann = json.loads(told.out)
        kinds = {each["kind"] for each in ann[0]["events"]}
        return ann if {"registered", "denied", "noticed", "pushed", "state"} <= kinds else []

    found: list[Any] = []

    async def complete() -> bool:
        found[:] = await whole()
        return bool(found)

    await until(complete)
    return found


async def test_no_canary_leaves_the_house(site: Site) -> None:
    eas, apns, fcm, webpush = site.sandbox.eas, site.sandbox.apns, site.sandbox.fcm, site.sandbox.webpush
    answers: list[Any] = []
    eas.add_mailbox(ANN, PASSWORD)
    async with site.relay() as relay:
        status, iphone = await site.register(password=PASSWORD, classes=["email", "calendar"])
        assert status == 201
        assert (await site.register_android(password=PASSWORD))[0] == 201
        assert (await site.register_webpush(password=PASSWORD))[0] == 201
        await site.held()

        site.deliver(subject=SUBJECT, sender=SENDER, body=BODY)
        site.deliver(cls=CollectionClass.CALENDAR, subject=SUBJECT, sender=SENDER, body=BODY)
        await until(lambda: {push.headers["apns-collapse-id"][-5:] for push in apns.received} == {"email", "endar"})
        await fcm.wait(1, SOON)
        await webpush.wait(1, SOON)

        # Failures must not show a canary either: refused passwords, malformed bodies, broken answers full of mail.
        answers.append((await site.register(password=WRONG))[1])
        async with site.api.patch(
            f"/v1/registrations/{iphone['id']}",
            json={"credential": {"kind": "basic", "password": WRONG}},
            headers={"Authorization": f"Bearer {iphone['secret']}"},
        ) as response:
            assert response.status == 403
            answers.append(await response.json(content_type=None))
        for body in (
            f'{{"mailbox": "{ANN}", "credential": {{"password": "{PASSWORD}"',
            json.dumps({"mailbox": ANN, "credential": {"kind": PASSWORD, "password": [PASSWORD]}, PASSWORD: PASSWORD}),
            json.dumps(
                {
                    "mailbox": ANN,
                    "credential": {"kind": "basic", "password": PASSWORD + "\n"},
                    "device": {"platform": "apns", "token": IPHONE, "app": APP},
                }
            ),
        ):
            async with site.api.post(
                "/v1/registrations", data=body, headers={"Content-Type": "application/json"}
            ) as response:
                assert response.status in {400, 422}
                answers.append(await response.json(content_type=None))
        eas.fail(ANN, FailurePlan(Garble(), "Sync", 1))
        eas.fail(ANN, FailurePlan(AnswerHttp(500), "Sync", 1))
        before = len(apns.received)
        site.deliver(subject=SUBJECT, sender=SENDER, body=BODY)
        await until(lambda: len(apns.received) > before)
        answers += [await relay.health(), await relay.metrics()]
        answers.append(await explained(site))
        config = ("--config", str(site.sandbox.toml))
        exported = await relay_command("mailboxes", "export", ANN, *config)
        assert exported.status == 0, exported.err
        answers.append(json.loads(exported.out))
        assert leaks((IPHONE,), exported.out.encode()) == []
        log = relay.log.read_bytes()
        database = b"".join(
            path.read_bytes() for path in (site.sandbox.folder / "state").iterdir() if "sqlite" in path.name
        )

    pushes = [*apns.received, *fcm.received, *webpush.received]
    endpoints = tuple({push.device_token for push in webpush.received})
    egress = sorted((site.sandbox.folder / "state" / "egress").glob("*.jsonl"))
    found = audit(egress)
    assert (found.seen.lines, found.faults) == (len(pushes), []), "every push is in the egress log, and nothing else"
    assert leaks((*CONTENT, *SECRETS, ANN, IPHONE, *endpoints), b"".join(path.read_bytes() for path in egress)) == []
    everything = (*CONTENT, *SECRETS)
    assert [leaks((*everything, ANN), raw(push)) for push in pushes] == [[]] * len(pushes)
    assert leaks((*everything, ANN), b"".join(webpush.messages)) == []
    assert webpush.complaints == []
    assert leaks((*everything, *endpoints), json.dumps(answers).encode()) == []
    assert leaks((*everything, *endpoints), log) == []
    assert leaks(everything, database) == []
    # The canaries did pass through the relay: the mail server sent them, and the log was written at level debug.
    assert b'"level": "debug"' in log
    assert all(older.moment < newer.moment for older, newer in pairwise(apns.received))


@pytest.mark.slow
async def test_a_removed_registration_leaves_no_sealed_credential_behind(site: Site) -> None:
    async with site.relay():
        status, answer = await site.register()
        assert status == 201
        headers = {"Authorization": f"Bearer {answer['secret']}"}
        async with site.api.delete(f"/v1/registrations/{answer['id']}", headers=headers) as response:
            assert response.status == 204
        async with site.api.get(f"/v1/registrations/{answer['id']}", headers=headers) as response:
            assert response.status == 410
        await until(lambda: site.sandbox.eas.held == 0)


@pytest.mark.slow
async def test_a_user_who_is_forgotten_while_the_relay_runs_leaves_a_keyed_hash(site: Site) -> None:
    config = ("--config", str(site.sandbox.toml))
    site.sandbox.eas.add_mailbox(ANN, PASSWORD)
    async with site.relay() as relay:
        assert (await site.register(password=PASSWORD))[0] == 201
        await site.held()
        site.deliver(subject=SUBJECT, sender=SENDER, body=BODY)
        await until(lambda: bool(site.sandbox.apns.received))

        forgotten = await relay_command("mailboxes", "forget", ANN, "--yes", *config)

        assert (forgotten.status, forgotten.err) == (0, ""), forgotten.err
        assert site.sandbox.eas.held == 0
        listed = await relay_command("mailboxes", "list", "--json", *config)
        assert json.loads(listed.out)["mailboxes"] == []
        log = relay.log.read_bytes()
    acts = await relay_command("audit", "acts", "--user", ANN, "--json", *config)
    assert [each["what"] for each in json.loads(acts.out)] == ["mailbox.forget"]
    assert ANN not in acts.out
    assert (await relay_command("audit", "verify", "--acts", *config)).status == 0
    state = [path for path in (site.sandbox.folder / "state").rglob("*") if path.is_file()]
    assert [path for path in state if leaks((ANN, IPHONE, PASSWORD), path.read_bytes())] == []
    assert leaks((PASSWORD, IPHONE, ANN), log) == []
