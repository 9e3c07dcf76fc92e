import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, Unauthorized, Unreachable
from eas_watcher.machine.remedies import REDIRECTS
from eas_watcher.machine.state import RATE, Policy
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.client import EasClient
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from relay.watch.accounts import Connection, EasServer
from relay.watch.credential_check import CheckResult, Finding, OptionsGuards, check_credential
from tests.unit.eas_watcher.running import Middle
from tests.unit.eas_watcher.seeker import Seeker

pytestmark = pytest.mark.looptime

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANN = BasicCredential("ann", "correct horse")
ACCOUNT = Account(
    MailboxId("m"), "https://mail.example.com/Microsoft-Server-ActiveSync", "ann", DeviceId("A" * 32), ANN
)
OFFER = {"ms-asprotocolversions": "14.1,16.1", "ms-asprotocolcommands": "FolderSync,Ping,Sync"}


GOOD = HttpReply(200, OFFER, b"", ())
REFUSED = HttpReply(401, {}, b"", ())


class Server(HoldsInTask):
    """Answer requests in order."""

    def __init__(self, *answers: HttpReply | EasError) -> None:
        self.answers = list(answers)
        self.asked: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, EasError):
            raise answer
        return answer


class Guards(OptionsGuards):
    """What is known of all servers, unless None; counts the servers that were asked."""

    def __init__(self, *, answers_all: bool | None) -> None:
        super().__init__()
        self.known = answers_all
        self.asked = 0

    async def answers_all(self, url: str, ask: Callable[[], Awaitable[bool]]) -> bool:
        if self.known is not None:
            return self.known

        async def count() -> bool:
            self.asked += 1
            return await ask()

        return await super().answers_all(url, count)


@dataclass
class World:
    """One candidate and its server."""

    own: Transport
    anonymous: Transport
    guards: OptionsGuards = field(default_factory=lambda: Guards(answers_all=False))
    hosts: frozenset[str] = frozenset({"mail2.example.com"})
    admissions: Admissions = field(default_factory=lambda: Admissions(8, Middle(), lambda: NOW))

    async def check(self, seeker: Seeker | None = None) -> Finding:
        server = EasServer(ACCOUNT.url, self.anonymous, Policy(hosts=self.hosts))
        client = EasClient(ACCOUNT, self.own, self.admissions, RATE, candidate=True)
        return await check_credential(Connection(ACCOUNT, self.own, server), client, self.guards, seeker)


async def check(server: Server, *, answers_all: bool = False, seeker: Seeker | None = None) -> Finding:
    return await World(server, server, Guards(answers_all=answers_all)).check(seeker)


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (GOOD, Finding(CheckResult.ACCEPTED, url=ACCOUNT.url)),
        (REFUSED, Finding(CheckResult.REFUSED)),
        (
            HttpReply(503, {}, b"", ()),
            Finding(CheckResult.UNKNOWN, "the server cannot serve now (HTTP 503)", Reason.SERVER_BUSY),
        ),
        (
            Unreachable("no connection: refused"),
            Finding(CheckResult.UNKNOWN, "no connection: refused", Reason.UNREACHABLE, in_doubt=True),
        ),
        (
            AccessDenied("no ticket", Reason.KERBEROS_TICKET),
            Finding(CheckResult.UNKNOWN, "no ticket", Reason.KERBEROS_TICKET),
        ),
        (AccessDenied("not here", Reason.HTTP_404), Finding(CheckResult.UNKNOWN, "not here", Reason.HTTP_404)),
    ],
)
async def test_one_question_gives_the_result(answer: HttpReply | EasError, finding: Finding) -> None:
    server = Server(answer)

    assert await check(server) == finding

    assert [request.method for request in server.asked] == ["OPTIONS"]
    assert server.asked[0].headers["Authorization"] == ANN.authorization()


def sent_to(host: str) -> HttpReply:
    return HttpReply(451, {"x-ms-location": f"https://{host}/eas"}, b"", ())


async def test_a_server_that_sends_the_mailbox_to_an_allowed_host_leaves_the_result_to_that_one() -> None:
    server = Server(sent_to("mail2.example.com"), GOOD, REFUSED)

    finding = await World(server, server, OptionsGuards()).check()

    assert finding == Finding(CheckResult.ACCEPTED, url="https://mail2.example.com/eas")
    assert [request.url for request in server.asked] == [ACCOUNT.url, *["https://mail2.example.com/eas"] * 2]


ABSENT = HttpReply(404, {}, b"", ())
NEW = "https://mail2.example.com/eas"


async def test_a_server_that_has_the_mailbox_no_longer_leaves_the_result_to_the_one_that_has_it() -> None:
    server = Server(ABSENT, GOOD, REFUSED)

    finding = await World(server, server, OptionsGuards()).check(Seeker(NEW))

    assert finding == Finding(CheckResult.ACCEPTED, url=NEW)

    assert [request.url for request in server.asked] == [ACCOUNT.url, NEW, NEW]


async def test_a_candidate_that_autodiscover_refuses_is_refused() -> None:
    server = Server(ABSENT)

    assert (await check(server, seeker=Seeker(Unauthorized("no")))).result is CheckResult.REFUSED
    assert len(server.asked) == 1


async def test_a_candidate_whose_mailbox_is_nowhere_has_no_result() -> None:
    finding = await check(Server(ABSENT), seeker=Seeker(ACCOUNT.url))

    assert finding.result is CheckResult.UNKNOWN
    assert finding.detail.endswith("; looked for elsewhere: Autodiscover names the same URL")


async def test_a_server_that_denies_a_candidate_otherwise_has_the_mailbox() -> None:
    seeker = Seeker(NEW)

    assert (await check(Server(HttpReply(403, {}, b"", ())), seeker=seeker)).result is CheckResult.UNKNOWN
    assert not seeker.shown


async def test_no_candidate_is_shown_to_a_host_that_is_not_allowed() -> None:
    server = Server(sent_to("evil.example.net"))

    finding = await check(server)

    assert finding.result is CheckResult.UNKNOWN
    assert len(server.asked) == 1


async def test_servers_that_send_a_candidate_round_in_circles_are_left() -> None:
    server = Server(*[sent_to("mail2.example.com")] * 9)

    finding = await check(server)

    assert finding.result is CheckResult.UNKNOWN
    assert len(server.asked) == REDIRECTS + 1


async def test_an_answer_that_names_no_versions_proves_nothing() -> None:
    finding = await check(Server(HttpReply(200, {}, b"", ())))

    assert finding.result is CheckResult.UNKNOWN


@pytest.mark.parametrize("refusal", [REFUSED, HttpReply(403, {}, b"", ())])
async def test_a_server_is_asked_once_whether_it_guards_options(refusal: HttpReply) -> None:
    server = Server(GOOD, refusal, GOOD)
    world = World(server, server, OptionsGuards())

    assert (await world.check()).result is CheckResult.ACCEPTED
    assert (await world.check()).result is CheckResult.ACCEPTED

    with_credential = ["Authorization" in request.headers for request in server.asked]
    assert with_credential == [True, False, True]


@pytest.mark.parametrize(
    ("commands", "asked"),
    [("FolderSync,Ping,Provision,Sync", "Provision"), ("FolderSync,Ping,Settings,Sync", "Settings")],
)
async def test_a_server_that_answers_all_clients_must_take_a_command_too(commands: str, asked: str) -> None:
    offer = HttpReply(200, OFFER | {"ms-asprotocolcommands": commands}, b"", ())
    server = Server(offer, offer, REFUSED)

    assert (await World(server, server, OptionsGuards()).check()).result is CheckResult.REFUSED

    assert f"Cmd={asked}&" in server.asked[2].url
    assert server.asked[2].headers["Authorization"] == ANN.authorization()


async def test_a_command_that_is_taken_is_an_acceptance() -> None:
    offer = HttpReply(200, OFFER | {"ms-asprotocolcommands": "FolderSync,Ping,Provision,Sync"}, b"", ())

    finding = await check(Server(offer, HttpReply(200, {}, b"\x03", ())), answers_all=True)

    assert finding.result is CheckResult.ACCEPTED


async def test_a_server_that_wants_all_clients_to_start_over_has_taken_the_credential() -> None:
    offer = HttpReply(200, OFFER | {"ms-asprotocolcommands": "FolderSync,Ping,Settings,Sync"}, b"", ())
    settings = HttpReply(200, {"x-ms-rp": "16.1;Sync,Ping"}, b"", ())

    finding = await check(Server(offer, settings), answers_all=True)

    assert finding.result is CheckResult.ACCEPTED


async def test_a_result_is_unknown_while_it_is_unknown_whether_options_is_guarded() -> None:
    guards = Guards(answers_all=None)
    server = Server(GOOD, Unreachable("cut"), GOOD, REFUSED)
    world = World(server, server, guards)

    assert await world.check() == Finding(CheckResult.UNKNOWN, "cut", Reason.UNREACHABLE, in_doubt=True)
    assert (await world.check()).result is CheckResult.ACCEPTED

    assert guards.asked == 2


async def test_many_candidates_wait_for_one_answer_whether_options_is_guarded() -> None:
    guards = Guards(answers_all=None)

    async def ask() -> bool:
        await asyncio.sleep(5)
        return True

    assert set(await asyncio.gather(*(guards.answers_all(NEW, ask) for _ in range(1000)))) == {True}
    assert (guards.asked, asyncio.get_running_loop().time()) == (1, 5.0)


async def test_whether_options_is_guarded_is_not_asked_over_the_candidates_own_transport() -> None:
    own = Server(replace(GOOD, set_cookies=("user=ann",)), HttpReply(200, {}, b"\x03"))
    anonymous = Server(GOOD)
    own.answers[0] = replace(GOOD, headers=OFFER | {"ms-asprotocolcommands": "Provision"}, set_cookies=("user=ann",))

    assert (await World(own, anonymous, OptionsGuards()).check()).result is CheckResult.ACCEPTED

    assert [request.headers.get("Cookie") for request in own.asked] == [None, "user=ann"]
    assert [{*request.headers} for request in anonymous.asked] == [{"User-Agent"}]


async def test_a_credential_that_is_void_for_certain_is_refused() -> None:
    finding = await check(Server(CredentialVoid("expired", Reason.CERTIFICATE_EXPIRED)))

    assert finding.result is CheckResult.REFUSED


async def test_a_server_that_names_a_time_is_left_alone_until_then() -> None:
    finding = await check(Server(HttpReply(503, {"retry-after": "600"}, b"")))

    assert finding == Finding(
        CheckResult.UNKNOWN, "the server cannot serve now (HTTP 503)", Reason.SERVER_BUSY, retry_in=600.0
    )


async def test_a_candidate_whose_server_is_away_queues_for_it() -> None:
    finding = await check(Server(Unreachable("no connection: refused", reached=False)))

    assert finding == Finding(
        CheckResult.UNKNOWN, "no connection: refused", Reason.UNREACHABLE, retry_in=2.0, queues=True
    )


async def test_all_requests_of_a_check_are_one_turn_at_the_server() -> None:
    offer = HttpReply(200, OFFER | {"ms-asprotocolcommands": "Provision"}, b"")
    servers = [Server(offer, offer, HttpReply(200, {}, b"\x03")), Server(offer, HttpReply(200, {}, b"\x03"))]
    world = World(servers[0], servers[0], OptionsGuards())
    await world.check()
    began = asyncio.get_running_loop().time()
    world.own = servers[1]
    await world.check()

    assert [len(server.asked) for server in servers] == [3, 2]
    assert asyncio.get_running_loop().time() - began == pytest.approx(1 / RATE)
