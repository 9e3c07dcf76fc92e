import asyncio
from dataclasses import dataclass, field, replace

import pytest

from eas_watcher.auth.anonymous import NoCredential
from eas_watcher.autodiscover.search import Lookup
from eas_watcher.commands.cookies import FAILURES
from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.options import Options
from eas_watcher.commands.ping import Ping
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, ProtocolViolation, ServerBusy, ServerRenewed, Unauthorized, Unreachable
from eas_watcher.machine.memory import Partnership
from eas_watcher.machine.state import RATE
from eas_watcher.names import CollectionClass, MailboxId, SyncKey
from eas_watcher.runtime.client import AutodiscoverClient, EasClient, raise_for_cut
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.server.breaker import DISTINCT
from eas_watcher.server.mass_refusals import LEAST
from tests.fakes.eas import Answer, ScriptedTransport
from tests.unit.eas_watcher.running import Middle, account, folders, pinged
from tests.unit.eas_watcher.watching import INBOX, NOW, PARTNERSHIP

pytestmark = pytest.mark.looptime

ELSEWHERE = "https://mail2.example.com/eas"
OFFER = HttpReply(200, {"ms-asprotocolversions": "14.1"}, b"", ("backend=b7; path=/",))
REFUSED = HttpReply(401, {"www-authenticate": "Basic"}, b"")
BUSY = HttpReply(503, {}, b"")
AWAY = Unreachable("no connection: refused", reached=False)
HIERARCHY = FolderSync(SyncKey("h1"))
PING = Ping(600, ((INBOX.id, CollectionClass.EMAIL),))


@dataclass
class HeldPings:
    """Note which Pings begin and end."""

    noted: list[tuple[MailboxId, float | None]] = field(default_factory=list)

    def ping_begins(self, mailbox: MailboxId, heartbeat: float) -> None:
        self.noted.append((mailbox, heartbeat))

    def ping_ends(self, mailbox: MailboxId) -> None:
        self.noted.append((mailbox, None))


class Bench:
    """One client, what its requests are answered, and the admissions."""

    def __init__(self, *script: Answer | tuple[float, Answer], candidate: bool = False) -> None:
        self.admissions = Admissions(1, Middle(), lambda: NOW)
        self.transport = ScriptedTransport(*script)
        self.pings = HeldPings()
        self.admitted: list[float] = []
        self.client = EasClient(
            account(),
            self.transport,
            self.admissions,
            RATE,
            pings=self.pings,
            candidate=candidate,
            admitted=self.on_admitted,
        )

    async def on_admitted(self) -> None:
        self.admitted.append(clock())

    @property
    def admission(self) -> ServerAdmission:
        return self.client.admission


def clock() -> float:
    return asyncio.get_running_loop().time()


async def test_an_answer_says_how_long_it_took_after_its_admission() -> None:
    bench = Bench((2.0, folders("h2")))
    bench.admission.failed(ClientAdmission("other"), AWAY)

    answer = await bench.client.send(HIERARCHY, PARTNERSHIP)

    assert (answer.reply.sync_key, answer.held, clock()) == ("h2", 2.0, 4.0)
    assert answer.http.status == 200
    assert bench.admission.state == "serving"
    assert bench.admitted == [2.0]


async def test_a_failure_is_reported_to_the_admission() -> None:
    bench = Bench(AWAY)

    with pytest.raises(Unreachable):
        await bench.client.send(HIERARCHY, PARTNERSHIP)

    assert (bench.admission.state, bench.admission.detail) == ("away", str(AWAY))


async def test_a_refusal_among_many_is_raised_as_one_of_them() -> None:
    bench = Bench(REFUSED)
    for number in range(LEAST - 1):
        bench.admission.failed(ClientAdmission(number), Unauthorized("refused"))

    with pytest.raises(Unauthorized) as caught:
        await bench.client.send(HIERARCHY, PARTNERSHIP, refusals=1)

    assert caught.value.shared


async def test_the_refusal_of_a_candidate_is_its_own() -> None:
    bench = Bench(REFUSED, candidate=True)
    for number in range(LEAST - 1):
        bench.admission.failed(ClientAdmission(number), Unauthorized("refused"))

    with pytest.raises(Unauthorized) as caught:
        await bench.client.send(HIERARCHY, PARTNERSHIP)

    assert not caught.value.shared
    assert not bench.admission.refusals.suspected


async def test_a_request_that_is_not_wanted_any_more_is_not_sent_and_leaves_its_turn_to_others() -> None:
    bench = Bench(candidate=True)
    bench.admission.failed(ClientAdmission("other"), AWAY)

    async def withdrawn() -> None:
        raise LookupError

    client = EasClient(account(), bench.transport, bench.admissions, RATE, candidate=True, admitted=withdrawn)
    with pytest.raises(LookupError):
        await client.send(Options(), Partnership())
    await bench.admission.enter(ClientAdmission("next", passed=0))

    assert (clock(), bench.transport.requests) == (2.0, [])


async def test_a_ping_is_noted_while_it_is_held_and_takes_no_short_request() -> None:
    bench = Bench((600.0, pinged(1)))
    async with bench.admission.short:
        await bench.client.send(PING, PARTNERSHIP)

    assert bench.pings.noted == [("m1", 600), ("m1", None)]


async def test_what_the_server_says_of_itself_is_heard_once() -> None:
    said = replace(folders("h2"), headers={"x-ms-rp": "14.1;Sync"})
    bench = Bench(said, said)

    with pytest.raises(ServerRenewed):
        await bench.client.send(HIERARCHY, PARTNERSHIP)
    await bench.client.send(HIERARCHY, PARTNERSHIP)


async def test_servers_of_a_farm_that_say_different_things_in_turn_are_heard_once_each() -> None:
    old, new = (replace(folders("h2"), headers={"x-ms-rp": said}) for said in ("14.1", "14.1,16.1"))
    bench = Bench(old, new, old, new)

    for _ in range(2):
        with pytest.raises(ServerRenewed):
            await bench.client.send(HIERARCHY, PARTNERSHIP)
    for _ in range(2):
        await bench.client.send(HIERARCHY, PARTNERSHIP)


async def test_each_day_before_a_password_expires_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    days = ("2", "2", "1", "soon", "1" * 9, "0", "")
    bench = Bench(*(replace(folders("h2"), headers={"x-ms-credentials-expire": each}) for each in days))

    for _ in days:
        await bench.client.send(HIERARCHY, PARTNERSHIP)

    told = [record.__dict__ for record in caplog.records if record.message == "password expires"]
    assert [(each["mailbox"], each["days"]) for each in told] == [("m1", 2), ("m1", 1), ("m1", 0)]


async def test_cookies_go_to_the_host_that_set_them() -> None:
    bench = Bench(OFFER, OFFER, OFFER, OFFER)
    for url in (None, None, ELSEWHERE, ELSEWHERE):
        await bench.client.send(Options(), Partnership(url=url))

    assert [request.headers.get("Cookie") for request in bench.transport.requests] == [
        None,
        "backend=b7",
        None,
        "backend=b7",
    ]
    assert bench.transport.requests[-1].url == ELSEWHERE


@pytest.mark.parametrize(
    "failure",
    [
        HttpReply(500, {}, b""),
        Unreachable("no answer in time", 120.0),
        HttpReply(200, {"content-type": "text/html"}, b"<html>Sign in</html>"),
    ],
)
async def test_a_cookie_with_which_all_requests_fail_is_forgotten(failure: Answer) -> None:
    bench = Bench(OFFER, *[failure] * FAILURES, OFFER)
    await bench.client.send(Options(), Partnership())
    for _ in range(FAILURES):
        with pytest.raises((ServerBusy, Unreachable, ProtocolViolation)):
            await bench.client.send(Options(), Partnership())
    await bench.client.send(Options(), Partnership())

    sent = [request.headers.get("Cookie") for request in bench.transport.requests]
    assert sent == [None, *["backend=b7"] * FAILURES, None]


async def test_a_request_that_did_not_arrive_says_nothing_about_cookies() -> None:
    bench = Bench(OFFER, *[AWAY] * FAILURES, OFFER)
    await bench.client.send(Options(), Partnership())
    for _ in range(FAILURES):
        with pytest.raises(Unreachable):
            await bench.client.send(Options(), Partnership())
    await bench.client.send(Options(), Partnership())

    assert bench.transport.requests[-1].headers["Cookie"] == "backend=b7"


async def test_a_client_at_another_url_is_new_there_and_keeps_being_a_candidate() -> None:
    bench = Bench(OFFER, candidate=True)
    bench.client.address(ELSEWHERE)
    for number in range(LEAST):
        bench.admission.failed(ClientAdmission(number), Unauthorized("refused"))

    sending = asyncio.ensure_future(bench.client.send(Options(), Partnership(url=ELSEWHERE)))
    await asyncio.sleep(1)

    assert (bench.admission.held_back, bench.transport.requests) == (1, [])
    sending.cancel()


async def test_an_account_without_a_url_makes_no_admission_of_its_own() -> None:
    admissions = Admissions(8, Middle(), lambda: NOW)

    EasClient(replace(account(), url=""), ScriptedTransport(), admissions, RATE, url=ELSEWHERE)

    assert [url for url, _ in admissions.items()] == [ELSEWHERE]


async def test_a_watched_mailbox_is_counted_where_it_is() -> None:
    bench = Bench()
    bench.client.watch_begins(None)

    bench.client.address(ELSEWHERE)
    assert {url: admission.watched for url, admission in bench.admissions.items()} == {account().url: 0, ELSEWHERE: 1}

    bench.client.watch_ends()
    assert [admission.watched for _, admission in bench.admissions.items()] == [0, 0]
    bench.client.address(None)
    assert bench.client.url == account().url
    assert [admission.watched for _, admission in bench.admissions.items()] == [0, 0]


async def test_a_client_with_another_credential_takes_no_turn_and_shares_no_cookie() -> None:
    bench, other = Bench(OFFER, candidate=True), ScriptedTransport(REFUSED)
    await bench.client.send(Options(), Partnership())
    anonymous = bench.client.showing(NoCredential("ann@example.com"), other)

    fetched = await anonymous.fetch(Options(), Partnership())

    assert isinstance(fetched.error, Unauthorized)
    assert fetched.http is REFUSED
    assert clock() == 0.0
    [request] = other.requests
    assert (request.url, {*request.headers}) == (account().url, {"User-Agent"})
    assert bench.admitted == [0.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "error"), [(OFFER, type(None)), (HttpReply(403, {}, b""), AccessDenied), (BUSY, ServerBusy)]
)
async def test_fetches_any_answer(answer: HttpReply, error: type) -> None:
    fetched = await Bench(answer).client.fetch(Options(), Partnership())

    assert fetched.http is answer
    assert type(fetched.error) is error


async def test_the_admission_learns_from_a_fetched_answer_that_the_server_is_away() -> None:
    bench = Bench(BUSY)
    for number in range(DISTINCT - 1):
        bench.admission.failed(ClientAdmission(number), ServerBusy("busy", shared=True))

    await bench.client.fetch(Options(), Partnership())

    assert bench.admission.state == "away"


async def test_a_refusal_that_was_fetched_is_no_acceptance() -> None:
    bench = Bench(REFUSED, folders("h2"))
    for number in range(LEAST):
        bench.admission.failed(ClientAdmission("m1" if number == 0 else number), Unauthorized("refused"))

    await bench.client.fetch(HIERARCHY, PARTNERSHIP)
    assert bench.admission.refusals.suspected
    await bench.client.send(HIERARCHY, PARTNERSHIP)
    assert not bench.admission.refusals.suspected


async def test_a_failure_instead_of_an_answer_is_raised_by_fetch() -> None:
    bench = Bench(AWAY)

    with pytest.raises(Unreachable):
        await bench.client.fetch(Options(), Partnership())

    assert bench.admission.state == "away"


def searching(*script: Answer) -> tuple[AutodiscoverClient, ScriptedTransport, Admissions]:
    transport, admissions = ScriptedTransport(*script), Admissions(8, Middle(), lambda: NOW)
    return AutodiscoverClient(account(), transport, admissions, RATE), transport, admissions


V2 = Lookup("GET", "https://autodiscover.example.com/autodiscover/autodiscover.json?Email=ann")
V1 = Lookup("POST", "https://autodiscover.example.com/autodiscover/autodiscover.xml", b"<a/>", credential=True)


async def test_questions_of_one_search_take_one_turn_at_each_host() -> None:
    answers = [HttpReply(404, {}, b""), REFUSED, BUSY]
    client, transport, admissions = searching(*answers)
    plain = Lookup("GET", "http://autodiscover.example.com/autodiscover/autodiscover.xml")

    assert [await client.ask(lookup) for lookup in (V2, V1, plain)] == answers

    assert ["Authorization" in request.headers for request in transport.requests] == [False, True, False]
    assert [url for url, _ in admissions.items()] == [
        "https://autodiscover.example.com",
        "http://autodiscover.example.com",
    ]
    assert clock() == 0.0


async def test_an_admission_of_a_mail_server_says_nothing_about_autodiscover_at_its_host() -> None:
    client, transport, admissions = searching(HttpReply(404, {}, b""))
    admissions.admission("https://autodiscover.example.com/Microsoft-Server-ActiveSync", RATE).failed(
        ClientAdmission("watch"), AWAY
    )

    await client.ask(V2)

    assert len(transport.requests) == 1


async def test_a_host_that_is_away_is_not_asked() -> None:
    client, transport, _ = searching(AWAY)
    for _ in range(2):
        with pytest.raises(Unreachable):
            await client.ask(V2)

    assert (len(transport.requests), clock()) == (1, 0.0)


async def test_the_refusals_of_autodiscover_are_not_counted() -> None:
    client, _, admissions = searching(*[REFUSED] * (2 * LEAST))
    for _ in range(2 * LEAST):
        await client.ask(V1)

    assert not any(admission.refusals.suspected for _, admission in admissions.items())


@pytest.mark.parametrize("status", [408, 502, 504, 524])
def test_a_gateway_that_gives_up_a_held_request_cuts_it(status: int) -> None:
    with pytest.raises(Unreachable, match=str(status)) as caught:
        raise_for_cut(HttpReply(status, {}, b""), 30.0)

    assert (caught.value.survived, caught.value.reached) == (30.0, True)


@pytest.mark.parametrize(("status", "held"), [(502, 29.9), (504, 0.0), (500, 600.0), (503, 600.0), (200, 600.0)])
def test_any_other_answer_to_a_held_request_is_no_cut(status: int, held: float) -> None:
    raise_for_cut(HttpReply(status, {}, b""), held)
