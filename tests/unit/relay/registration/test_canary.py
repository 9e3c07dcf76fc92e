"""Test that the canary's mailbox is registered once, and that its password is not shown again and again."""

from dataclasses import replace
from datetime import datetime, timedelta

from eas_watcher.machine.memory import WatchState
from relay.domain.canary import APP, RETRY, SERVICE, CanaryMailbox, Shown
from relay.domain.model import Mark, Platform, RegistrationId, RegistrationState
from relay.domain.ports.canary import CanaryRegistration
from relay.domain.receipts import PushId, Receipt
from relay.domain.users import Accounts
from relay.push.webpush.device import OwnDevice
from relay.registration.canary import CanaryReceipts, CanaryRegistrar
from relay.registration.registrations import Registrations, Rules
from relay.registration.verdicts import VerdictWaiter
from tests.fakes.relay_api import GOOD, SILENT, ApiWorld, judging

USER = "canary@example.com"


class Canaries:
    """The row of the canary, in memory."""

    def __init__(self) -> None:
        self.known = CanaryRegistration()
        self.device = b""
        self.why = ""
        self.tried_at: datetime | None = None
        self.seen: list[tuple[Platform, Shown]] = []

    async def registration(self) -> CanaryRegistration:
        return self.known

    async def may_try(self, now: datetime, pause: timedelta) -> bool:
        if self.tried_at is not None and now < self.tried_at + pause:
            return False
        self.tried_at = now
        return True

    async def registered(self, registration_id: RegistrationId, device: bytes) -> None:
        self.known, self.device, self.why = CanaryRegistration(registration_id), device, ""

    async def refused(self, why: str, at: datetime | None) -> None:
        self.why = why
        self.known = CanaryRegistration(self.known.id, at or self.known.refused_at)

    async def shown(self, platform: Platform, shown: Shown) -> None:
        self.seen.append((platform, shown))


class Bench:
    def __init__(self, password: str | None = GOOD) -> None:
        self.world = ApiWorld()
        self.canaries = Canaries()
        before = self.world.service.rules
        rules = Rules(before.servers, {Platform.WEBPUSH: frozenset({APP})}, before.logins, frozenset({SERVICE}))
        service = Registrations(
            self.world.store,
            VerdictWaiter(self.world.store, self.world.wakeups, seconds=1.0),
            self.world.key.public_key(),
            rules,
            self.world.time,
            self.world.tokens,
        )
        mailbox = CanaryMailbox("head-office", USER, Accounts(), password, self.world.time())
        self.registrar = CanaryRegistrar(
            self.canaries, self.world.store, service, mailbox, self.make_device, self.world.time
        )

    def make_device(self) -> tuple[bytes, str]:
        device = OwnDevice.make()
        return device.key, device.token

    async def look(self, minutes: float = 2) -> None:
        self.world.time.forward(minutes=minutes)
        async with judging(self.world):
            await self.registrar.look()

    def write(self, password: str) -> None:
        """Write the password's file again."""
        self.registrar.mailbox = CanaryMailbox("head-office", USER, Accounts(), password, self.world.time())


async def test_the_mailbox_is_registered_once_with_the_device_of_the_relay() -> None:
    bench = Bench()

    await bench.look()
    await bench.look()

    [own] = bench.world.store.registrations.values()
    assert (own.id, own.platform, own.app) == (bench.canaries.known.id, Platform.WEBPUSH, APP)
    assert own.state is RegistrationState.ACTIVE
    assert OwnDevice.read(bench.canaries.device).token == own.device_token
    assert bench.world.judged == [GOOD]


async def test_a_refused_password_is_shown_once_until_its_file_is_written_anew() -> None:
    bench = Bench("wrong")

    for _ in range(5):
        await bench.look()
    assert bench.world.judged == ["wrong"]
    assert bench.canaries.why == "credential-refused"
    assert bench.canaries.known.id is None

    bench.write(GOOD)
    await bench.look(RETRY.total_seconds() / 60)
    assert bench.world.judged == ["wrong", GOOD]
    assert bench.canaries.known.id is not None
    assert bench.canaries.why == ""


async def test_a_password_that_the_watch_finds_refused_is_not_shown_again_either() -> None:
    bench = Bench()
    await bench.look()
    first = bench.canaries.known.id
    assert first is not None
    mailbox = bench.world.store.registrations[first].mailbox_id
    known = bench.world.store.mailboxes[mailbox]
    refused = replace(known, state=WatchState.CREDENTIAL_REFUSED, since=bench.world.time())
    bench.world.store.mailboxes[mailbox] = refused

    for _ in range(5):
        await bench.look()
    assert bench.world.judged == [GOOD]

    bench.write(GOOD)
    await bench.look(RETRY.total_seconds() / 60)
    assert bench.world.judged == [GOOD, GOOD]
    assert list(bench.world.store.registrations) == [bench.canaries.known.id]
    assert bench.canaries.known.id != first


async def test_a_server_that_is_silent_leaves_a_registration_that_waits() -> None:
    bench = Bench(SILENT)
    await bench.look()
    await bench.look()

    [own] = bench.world.store.registrations.values()
    assert own.state is RegistrationState.VERIFYING
    assert bench.canaries.known.id == own.id


async def test_processes_register_one_after_the_other() -> None:
    bench = Bench()
    bench.canaries.tried_at = bench.world.time() + timedelta(minutes=2)

    await bench.look()

    assert not bench.world.store.registrations


async def test_a_canary_of_phones_alone_is_registered_by_them() -> None:
    bench = Bench(None)
    await bench.look()
    assert not bench.world.store.registrations


async def test_another_fault_is_kept_by_its_name() -> None:
    bench = Bench()
    bench.registrar.mailbox = CanaryMailbox("no-such-server", USER, Accounts(), GOOD, bench.world.time())

    await bench.look()

    assert bench.canaries.why == "not-registered"


async def test_receipts_of_phones_of_the_mailbox_are_noted_and_no_others() -> None:
    bench = Bench()
    await bench.look()
    id_ = bench.canaries.known.id
    assert id_ is not None
    view = await bench.world.store.view(id_)
    assert view is not None
    at = bench.world.time()
    receipt = Receipt(PushId.of(Mark.EMAIL, at, 1), at + timedelta(seconds=1))
    receipts = CanaryReceipts(bench.canaries, bench.registrar.mailbox)

    await receipts.take(view, receipt)
    receipts.mailbox = CanaryMailbox("head-office", "ann@example.com", Accounts())
    await receipts.take(view, receipt)
    receipts.mailbox = None
    await receipts.take(view, receipt)

    assert bench.canaries.seen == [(Platform.WEBPUSH, Shown(at, at + timedelta(seconds=1)))]
