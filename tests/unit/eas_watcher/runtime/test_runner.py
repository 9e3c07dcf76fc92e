import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf
from typing import Final

import pytest

from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import CredentialVoid, ServerBusy, Unauthorized, Unreachable, VersionRefused
from eas_watcher.machine.counters import CONFIRM_AFTER
from eas_watcher.machine.memory import Change, Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.machine.remedies import HOPELESS
from eas_watcher.machine.state import LOCKOUT_WINDOW, Failed, Policy, Provisioning
from eas_watcher.names import CollectionClass, MailboxId, PolicyKey, SyncKey
from eas_watcher.ports import Fenced, Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.runner import Runner
from eas_watcher.server.admission import ClientAdmission
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.wbxml.element import PROVISION
from tests.fakes.eas import Answer, ScriptedTransport
from tests.unit.eas_watcher.running import (
    EMPTY,
    KNOWN,
    World,
    account,
    command_of,
    folders,
    mails,
    ok,
    pinged,
    policy,
    sync_status,
    until_ended,
)
from tests.unit.eas_watcher.seeker import Seeker
from tests.unit.eas_watcher.watching import INBOX, NOW, PARTNERSHIP, watch_of

pytestmark = pytest.mark.looptime

MAILBOX = MailboxId("m1")


@asynccontextmanager
async def running(
    world: World, *script: Answer | tuple[float, Answer], memory: Memory = KNOWN
) -> AsyncIterator[ScriptedTransport]:
    """Run a watch until its script is played out; stop it afterwards."""
    transport = ScriptedTransport(*script)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.run(transport, memory))
        await transport.held.wait()
        yield transport
        task.cancel()


def commands(transport: ScriptedTransport) -> list[str]:
    return [command_of(request) for request in transport.requests]


def clock() -> float:
    return asyncio.get_running_loop().time()


async def test_a_new_mail_reaches_the_journal_and_the_next_ping_is_held() -> None:
    world = World()

    async with running(world, EMPTY, (60.0, pinged(2, "5")), mails("k2", "5:1")) as transport:
        assert commands(transport) == ["Sync", "Ping", "Sync", "Ping"]
        assert world.journal.changes == [Change(CollectionClass.EMAIL, 1)]
        assert world.journal.collections[INBOX.id].sync_key == "k2"
        assert world.journal.pings == [630, 630]
        assert clock() == 60.0


async def test_a_change_is_committed_before_the_next_request() -> None:
    world = World()
    seen: list[int] = []

    def look(_: HttpRequest) -> HttpReply:
        seen.append(len(world.journal.changes))
        return EMPTY

    async with running(world, mails("k2", "5:1"), look):
        assert seen == [1]


async def test_counts_what_it_does() -> None:
    world = World()

    async with running(world, mails("k2", "5:1", "5:2"), (40.0, Unreachable("x", 40.0)), EMPTY):
        stats = world.context.stats
        assert stats.changes == {CollectionClass.EMAIL: 2}
        assert world.context.admissions.requests == {("Sync", "answered"): 2, ("Ping", "Unreachable"): 1}
        assert stats.held == {MAILBOX: 60}
    assert stats.held == {}


@pytest.mark.parametrize("status", [408, 502, 504, 524])
async def test_a_gateway_that_gives_up_a_held_ping_teaches_the_heartbeat(status: int) -> None:
    world = World()

    async with running(world, EMPTY, (120.0, HttpReply(status, {}, b"")), EMPTY) as transport:
        assert commands(transport) == ["Sync", "Ping", "Sync", "Ping"]
        assert world.journal.pings == [630, 90]
        assert clock() == 125.0


async def test_a_gateway_that_answers_a_ping_at_once_teaches_nothing() -> None:
    world = World()

    async with running(world, EMPTY, (29.0, HttpReply(504, {}, b"")), EMPTY):
        assert world.journal.pings == [630, 630]


async def test_waits_as_long_as_the_server_says_and_records_until_when() -> None:
    world = World()
    busy = HttpReply(503, {"retry-after": "60"}, b"")

    async with running(world, busy, EMPTY) as transport:
        waits = world.journal.commits[0].condition
        assert waits is not None
        assert (waits.state, waits.reason, waits.retry_in) == (WatchState.WAITING, "server-busy", 63.0)
        assert clock() == 63.0
        assert commands(transport) == ["Sync", "Sync", "Ping"]
        assert world.journal.condition == Condition(WatchState.WATCHING)


async def test_backs_off_longer_and_longer_when_the_server_names_no_time() -> None:
    refused = Unreachable("x", reached=False)

    async with running(World(), refused, refused, refused, EMPTY):
        assert clock() == 2.0 + 4.0 + 8.0


async def test_a_restart_keeps_the_wait_that_was_under_way() -> None:
    world = World()

    async with running(world, EMPTY, memory=replace(KNOWN, retry_in=300.0)):
        assert clock() == 315.0
        assert [progress.condition for progress in world.journal.commits] == [Condition(WatchState.WATCHING)]


NO = HttpReply(401, {}, b"")
SIGNS: Final = {"server": "nginx"}


class RefusingServer(HoldsInTask):
    """A server that refuses every credential until `back_at` seconds; it answers OPTIONS without one by 401."""

    def __init__(self, back_at: float, renewed_at: float = inf) -> None:
        self.back_at = back_at
        self.renewed_at = renewed_at
        self.tried: list[float] = []
        """When a credential was shown."""
        self.looked: list[float] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        now = clock()
        if "Authorization" not in request.headers:
            self.looked.append(now)
            return HttpReply(401, SIGNS | ({"x-version": "2"} if now >= self.renewed_at else {}), b"")
        if command_of(request) == "Ping":
            await asyncio.sleep(600)
        else:
            self.tried.append(now)
        return HttpReply(401, SIGNS, b"") if now < self.back_at else EMPTY


async def watching(world: World, server: Transport, *names: str, seconds: float, memory: Memory = KNOWN) -> None:
    """Watch mailboxes for a time."""
    tasks = [asyncio.ensure_future(world.run(server, memory, name)) for name in names]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_after_the_third_refusal_a_credential_is_shown_again_after_an_hour_and_the_phone_hears_of_the_doubt() -> (
    None
):
    world, server = World(), RefusingServer(back_at=1200.0)

    await watching(world, server, "m1", seconds=6000.0)

    assert server.tried[:4] == [0.0, 63.0, 1008.0, 1008.0 + 3780.0]
    assert server.tried[4] > 4788.0 + 600.0
    assert [commit.in_doubt for commit in world.journal.commits if commit.attention] == [True]
    assert world.journal.refusals in {0, 3}
    assert world.journal.condition == Condition(WatchState.WATCHING)


async def test_a_doubtful_server_is_looked_at_without_a_credential_and_its_change_shows_the_credential_early() -> None:
    world, server = World(), RefusingServer(back_at=3000.0, renewed_at=3100.0)

    await watching(world, server, "m1", seconds=4000.0)

    assert server.looked[:8] == [1008.0 + 300.0 * number for number in range(8)]
    assert server.tried[3] == 1008.0 + 7 * 300.0
    assert world.journal.condition == Condition(WatchState.WATCHING)


async def test_no_sign_shows_a_credential_again_within_the_lock_out_window() -> None:
    world, server = World(), RefusingServer(back_at=1500.0, renewed_at=1500.0)

    await watching(world, server, "m1", seconds=4000.0)

    assert server.tried[:4] == [0.0, 63.0, 1008.0, 1008.0 + LOCKOUT_WINDOW]


async def test_one_accepted_mailbox_brings_all_doubtful_ones_of_its_server_back() -> None:
    world, server = World(), RefusingServer(back_at=1100.0)
    names = [f"m{number}" for number in range(4)]
    late = asyncio.get_running_loop().call_at(
        3000.0, lambda: asyncio.ensure_future(watching(world, server, "late", seconds=500.0))
    )

    await watching(world, server, *names, seconds=3400.0)

    late.cancel()
    back = [moment for moment in server.tried if moment >= 3000.0]
    assert len(back) == 1 + len(names)
    assert back[-1] <= 3001.0
    assert max(Counter(int(moment) for moment in server.tried if 1000 < moment < 2900).values()) == len(names)


async def test_a_credential_refused_while_another_is_accepted_ends_the_watch() -> None:
    world = World()
    well, ill = RefusingServer(back_at=0.0), RefusingServer(back_at=inf)
    other = asyncio.ensure_future(watching(world, well, "other", seconds=5000.0))
    await world.run(ill, KNOWN, "m1")

    other.cancel()
    assert clock() == (60.0 + 900.0) * 1.05
    assert world.journal.refusals == 3
    [told] = [commit for commit in world.journal.commits if commit.attention]
    assert not told.in_doubt
    assert told.condition is not None
    assert told.condition.state is WatchState.CREDENTIAL_REFUSED


def at_most_three_in_a_window(tried: list[float]) -> bool:
    return all(sum(first <= each < first + LOCKOUT_WINDOW for each in tried) <= 3 for first in tried)


@pytest.mark.parametrize(("back_at", "ended"), [(3000.0, 0), (inf, 5)])
async def test_mailboxes_that_a_server_refuses_while_it_accepts_as_many_are_given_up_after_a_day_only(
    back_at: float, ended: int
) -> None:
    world, well = World(), RefusingServer(back_at=0.0)
    ill = [RefusingServer(back_at=back_at) for _ in range(5)]
    others = asyncio.ensure_future(watching(world, well, *(f"well{n}" for n in range(6)), seconds=30 * 3600.0))
    watches = [asyncio.ensure_future(world.run(server, KNOWN, f"ill{n}")) for n, server in enumerate(ill)]
    await asyncio.sleep(29 * 3600.0)

    assert sum(watch.done() for watch in watches) == ended
    refused = [[moment for moment in server.tried if moment < back_at] for server in ill]
    assert all(map(at_most_three_in_a_window, refused))
    assert {len(tried) for tried in refused} <= ({5} if ended else {2, 3})
    for watch in (*watches, others):
        watch.cancel()
    await asyncio.wait([*watches, others])


async def test_a_restart_in_doubt_waits_on_and_shows_nothing_within_the_lock_out_window() -> None:
    world, server = World(), RefusingServer(back_at=0.0, renewed_at=10.0)

    await watching(world, server, "m1", seconds=5000.0, memory=replace(KNOWN, refusals=3, retry_in=4000.0))

    assert server.looked[0] == 0.0
    assert server.tried[0] == LOCKOUT_WINDOW


async def test_provisions_in_two_requests_and_uses_the_final_key() -> None:
    world = World()

    async with running(world, HttpReply(449, {}, b""), policy("111"), policy("222"), EMPTY) as transport:
        assert commands(transport) == ["Sync", "Provision", "Provision", "Sync", "Ping"]
        keys = [request.headers.get("X-MS-PolicyKey") for request in transport.requests]
        assert keys == ["77", "0", "111", "222", None]
        assert world.journal.partnership.policy_key == PolicyKey("222")


async def test_a_provision_that_fails_is_tried_again_later() -> None:
    again = policy("111"), policy("222"), EMPTY

    async with running(World(), HttpReply(449, {}, b""), ServerBusy("x"), *again) as transport:
        assert commands(transport) == ["Sync", "Provision", "Provision", "Provision", "Sync", "Ping"]


async def test_a_policy_cannot_be_asked_for_without_a_version() -> None:
    runner = Runner(account(), ScriptedTransport(), World().context, KNOWN, Policy())
    runner._state = Provisioning(watch_of(partnership=Partnership()))

    event = await runner._provide(Acknowledgement.THIRD_PARTY)

    assert isinstance(event, Failed)
    assert isinstance(event.error, VersionRefused)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_wipe_is_acknowledged_and_ends_the_watch(*, fails: bool) -> None:
    world = World()
    wish = ok(PROVISION("Provision", PROVISION("Status", "1"), PROVISION("RemoteWipe")))
    transport = ScriptedTransport(sync_status(140), wish, Unreachable("x") if fails else wish)

    await world.run(transport)

    assert commands(transport) == ["Sync", "Provision", "Provision"]
    begun, wiped = world.journal.commits[-2:]
    assert begun == Progress(condition=Condition(WatchState.WIPING, Reason.REMOTE_WIPE))
    assert wiped.condition == Condition(WatchState.WIPED, Reason.REMOTE_WIPE)
    assert wiped.attention


async def test_asks_the_hierarchy_before_a_key_is_tried_again() -> None:
    world = World()

    async with running(world, Unreachable("x"), folders("h2"), EMPTY) as transport:
        assert commands(transport) == ["Sync", "FolderSync", "Sync", "Ping"]
        assert world.journal.commits[0].collections == (replace(INBOX, tries=1),)
        assert world.journal.partnership == replace(PARTNERSHIP, hierarchy_key=SyncKey("h2"))


async def test_sends_back_the_cookies_that_it_was_given() -> None:
    async with running(World(), replace(EMPTY, set_cookies=("backend=b7; path=/; HttpOnly",))) as transport:
        assert [request.headers.get("Cookie") for request in transport.requests] == [None, "backend=b7"]


async def test_a_mail_dated_years_ahead_is_kept_as_of_now() -> None:
    world = World()

    async with running(world, mails("k2", "5:1", received="2036-01-01T00:00:00.000Z"), EMPTY):
        assert world.journal.collections[INBOX.id].newest == NOW


async def test_short_requests_wait_for_each_other_and_held_pings_do_not() -> None:
    world = World(short_requests=1)
    first, second = ScriptedTransport((10.0, EMPTY)), ScriptedTransport((10.0, EMPTY))

    async with asyncio.TaskGroup() as tasks:
        watches = [
            tasks.create_task(world.run(transport, name=name)) for name, transport in (("m1", first), ("m2", second))
        ]
        await first.held.wait()
        assert (clock(), commands(second)) == (10.0, ["Sync"])
        await second.held.wait()
        assert clock() == 20.0
        assert world.context.stats.held.keys() == {"m1", "m2"}
        for watch in watches:
            watch.cancel()


async def test_a_server_that_hangs_delays_no_mailbox_of_another() -> None:
    world = World(short_requests=1)
    hanging, other = ScriptedTransport((600.0, EMPTY)), ScriptedTransport((10.0, EMPTY))
    elsewhere = replace(account("m2"), url="https://mail.example.org/eas")

    async with asyncio.TaskGroup() as tasks:
        watches = [
            tasks.create_task(world.run(hanging, name="m1")),
            tasks.create_task(until_ended(Runner(elsewhere, other, world.context, KNOWN, Policy()))),
        ]
        await other.held.wait()
        assert (clock(), commands(hanging)) == (10.0, ["Sync"])
        for watch in watches:
            watch.cancel()


async def test_ends_when_another_process_owns_the_mailbox() -> None:
    world = World()
    world.journal.fenced = True
    transport = ScriptedTransport(mails("k2", "5:1"))

    with pytest.raises(Fenced):
        await world.run(transport)

    assert commands(transport) == ["Sync"]
    assert world.context.stats.changes == {}


async def test_logs_each_step_by_name_without_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "eas_watcher")
    refused = HttpReply(449, {}, b"")

    async with running(
        World(), refused, policy("111"), policy("canary"), (9.0, ServerBusy("busy")), folders("h2"), EMPTY
    ):
        pass

    steps = [record.__dict__ for record in caplog.records if record.message == "watch stepped"]
    assert [(step["state"], step["came"], step["next_state"]) for step in steps] == [
        ("Syncing", "NotProvisioned: the server wants its policy acknowledged (HTTP 449)", "Provisioning"),
        ("Provisioning", "Granted", "Syncing"),
        ("Syncing", "ServerBusy: busy", "Pausing"),
        ("Pausing", "Woken", "ReadingHierarchy"),
        ("ReadingHierarchy", "FolderSyncReply after 0.0 s", "Syncing"),
        ("Syncing", "SyncReply after 0.0 s", "Pinging"),
    ]
    assert "canary" not in repr([record.__dict__ for record in caplog.records])


async def test_logs_why_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "eas_watcher")
    void = CredentialVoid("the grant was withdrawn", reason=Reason.OAUTH_INVALID_GRANT)

    await World().run(ScriptedTransport(void))

    [record] = caplog.records
    assert (record.message, record.__dict__["state"]) == ("watch ended", "credential-refused")
    assert record.__dict__["reason"] == "oauth-invalid_grant"


async def test_logs_why_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "eas_watcher")

    async with running(World(), ServerBusy("the store is offline"), folders("h2"), EMPTY):
        [record] = caplog.records

    assert (record.message, record.__dict__["reason"]) == ("watch waits", "server-busy")
    assert record.__dict__["detail"] == "the store is offline"


def renewed(reply: HttpReply, said: str = "14.1;Sync,Ping") -> HttpReply:
    return replace(reply, headers={**reply.headers, "x-ms-rp": said})


OFFER = HttpReply(200, {"ms-asprotocolversions": "14.1", "ms-asprotocolcommands": "Sync,FolderSync,Ping"}, b"")


async def test_a_server_that_was_changed_is_asked_again_once_however_often_it_says_so() -> None:
    primed = mails("k9")
    script = (renewed(EMPTY), renewed(OFFER), renewed(folders("h2", INBOX.id)), renewed(primed), renewed(EMPTY))

    async with running(World(), *script, (600.0, renewed(pinged(1)))) as transport:
        assert commands(transport) == ["Sync", "", "FolderSync", "Sync", "Sync", "Ping", "Ping"]
    async with running(World(), renewed(EMPTY), OFFER, folders("h2", INBOX.id), primed, EMPTY) as transport:
        assert commands(transport)[-1] == "Ping"


async def test_a_server_changed_once_more_is_asked_once_more() -> None:
    start = (OFFER, folders("h2", INBOX.id), mails("k9"), EMPTY)

    async with running(World(), renewed(EMPTY, "1"), *start, (600.0, renewed(pinged(1), "2")), *start) as transport:
        assert commands(transport).count("") == 2


async def test_an_answer_to_a_start_is_no_reason_to_start_again() -> None:
    script = (renewed(OFFER), renewed(folders("h1", INBOX.id)), mails("k1"), EMPTY)

    async with running(World(), *script, memory=Memory(Partnership(informed=True))) as transport:
        assert commands(transport) == ["", "FolderSync", "Sync", "Sync", "Ping"]


async def test_logs_the_bytes_that_a_server_calls_malformed(caplog: pytest.LogCaptureFixture) -> None:
    async with running(World(), sync_status(4)) as transport:
        [record] = [record for record in caplog.records if record.message == "request refused"]
        assert vars(record)["command"] == "Sync"
        assert vars(record)["body"] == transport.requests[0].body.hex()
    assert "secret" not in caplog.text


async def test_logs_no_policy_that_a_server_calls_malformed(caplog: pytest.LogCaptureFixture) -> None:
    refused = ok(PROVISION("Provision", PROVISION("Status", "2")))

    async with running(World(), HttpReply(449, {}, b""), refused, refused):
        assert not [record for record in caplog.records if record.message == "request refused"]


async def test_the_next_mailbox_starts_from_what_the_first_one_has_survived() -> None:
    world = World()
    async with running(world, EMPTY, (600.0, pinged(1)), (600.0, pinged(1))):
        assert world.journal.pings == [630, 630, 945]
    async with running(world, EMPTY, (900.0, pinged(1))):
        pass
    assert world.admission.path.proven is not None

    async with running(world, EMPTY):
        assert world.journal.pings[-1] == 630

    async with running(world, EMPTY, (600.0, pinged(1)), (600.0, pinged(1)), (900.0, pinged(1))):
        pass
    async with running(world, EMPTY):
        assert world.journal.pings[-1] == 945


async def test_the_time_before_admission_is_no_time_that_a_ping_was_held(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "eas_watcher")
    world = World()

    def go_away(_: HttpRequest) -> HttpReply:
        for name in ("m2", "m3", "m4"):
            world.admission.failed(ClientAdmission(name), ServerBusy("busy", 100.0, shared=True))
        return EMPTY

    async with running(world, go_away, (1.0, pinged(1)), EMPTY, EMPTY):
        assert clock() > 100

    came = [record.__dict__["came"] for record in caplog.records if record.message == "watch stepped"]
    assert "PingReply after 1.0 s" in came


async def test_a_mailbox_waits_for_the_admission_of_a_server_that_is_away_and_records_it() -> None:
    world = World()
    away = Unreachable("no connection: Connection refused", reached=False)
    first, second = ScriptedTransport(away, away, EMPTY), ScriptedTransport(EMPTY)

    async with asyncio.TaskGroup() as tasks:
        watches = [tasks.create_task(world.run(first, name="m1"))]
        await asyncio.sleep(1)
        watches.append(tasks.create_task(world.run(second, name="m2")))
        await asyncio.sleep(3)
        assert second.requests == []
        assert world.admission.watched == 2
        await second.held.wait()
        # The probe of the first mailbox fails at 2 s, that of the second succeeds at 6 s.
        assert clock() == 6.0
        for watch in watches:
            watch.cancel()
    assert [progress.condition.retry_in for progress in world.journal.commits if progress.condition][:2] == [2.0, 4.0]


async def test_a_time_named_while_the_server_is_away_keeps_all_waiting() -> None:
    world = World()
    away = Unreachable("no connection: Connection refused", reached=False)
    busy = HttpReply(503, {"retry-after": "600"}, b"")
    first, second = ScriptedTransport((2.0, busy), EMPTY), ScriptedTransport(away, EMPTY)

    async with asyncio.TaskGroup() as tasks:
        watches = [tasks.create_task(world.run(first, name="m1")), tasks.create_task(world.run(second, name="m2"))]
        await second.held.wait()
        assert clock() >= 600.0
        await first.held.wait()
        for watch in watches:
            watch.cancel()
    retries = {round(p.condition.retry_in or 0.0) for p in world.journal.commits if p.condition}
    assert retries >= {2, 630}


async def test_a_credential_that_autodiscover_refuses_is_confirmed_no_sooner_though_the_server_is_away() -> None:
    world, away = World(), Unreachable("no connection", reached=False)
    seeker = Seeker(Unauthorized("Autodiscover refuses the credential (HTTP 401)"))
    refused_at: list[float] = []

    def last(_: HttpRequest) -> HttpReply:
        refused_at.append(clock())
        raise away

    transport = ScriptedTransport(*[away] * HOPELESS, last)
    policy = Policy(hosts=frozenset({"mail.example.com"}), discovered=True)
    runner = Runner(account(), transport, world.context, KNOWN, policy, seeker)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(until_ended(runner))
        await transport.held.wait()
        task.cancel()

    assert seeker.shown == [True]
    assert clock() - refused_at[0] >= CONFIRM_AFTER[0]
    assert world.journal.condition is not None
    assert (world.journal.condition.reason, world.journal.condition.retry_in) == ("http-401", 63.0)


async def test_what_a_search_elsewhere_found_is_recorded_beside_the_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "eas_watcher")
    world, seeker = World(), Seeker(account().url)
    policy = Policy(hosts=frozenset({"mail.example.com"}), discovered=True)
    transport = ScriptedTransport(HttpReply(404, {}, b""), EMPTY)
    runner = Runner(account(), transport, world.context, KNOWN, policy, seeker)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(until_ended(runner))
        await transport.held.wait()
        task.cancel()

    blocked, watching = (commit.condition for commit in world.journal.commits if commit.condition)
    said = "nothing is there: the URL is not an ActiveSync server's (HTTP 404); looked for elsewhere: "
    assert blocked.detail == f"{said}Autodiscover names the same URL"
    assert watching == Condition(WatchState.WATCHING)
    came = [vars(record)["came"] for record in caplog.records if record.message == "watch stepped"]
    assert came[0] == f"AccessDenied: {blocked.detail}"


async def test_a_sync_that_is_to_be_repeated_is_repeated_at_once_but_not_twice() -> None:
    world = World()

    async with running(world, sync_status(16), sync_status(16)) as transport:
        assert commands(transport) == ["Sync", "Sync", "FolderSync"]
        assert [commit.condition.reason for commit in world.journal.commits if commit.condition] == ["server-busy"]
        assert clock() == 10.0


class Tries:
    """Count the tries of a refused credential; the next ones wait as a test says."""

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)
        self.spent = 0

    async def spend(self, _: MailboxId) -> float | None:
        if self.waits:
            return self.waits.pop(0)
        self.spent += 1
        return None


async def test_a_refused_credential_is_shown_again_only_when_its_account_has_a_try_left() -> None:
    tries = Tries(1800.0)
    world = World()
    world.context = replace(world.context, tries=tries)
    at: list[float] = []

    def answer(_: HttpRequest) -> HttpReply:
        at.append(clock())
        return HttpReply(401, {}, b"")

    async with running(world, answer, answer, answer):
        pass

    assert [round(moment) for moment in at] == [0, 63 + 1890, 63 + 1890 + 945]
    assert tries.spent == 2  # the first refusal was not to be foreseen


async def test_a_try_lasts_until_the_server_refuses_the_credential_or_its_answer_is_lost() -> None:
    tries = Tries()
    world = World()
    world.context = replace(world.context, tries=tries)
    refused, busy, lost = HttpReply(401, {}, b""), HttpReply(503, {}, b""), Unreachable("cut")

    async with running(world, refused, busy, EMPTY):
        assert tries.spent == 1
    async with running(world, refused, lost, EMPTY):
        assert tries.spent == 3
