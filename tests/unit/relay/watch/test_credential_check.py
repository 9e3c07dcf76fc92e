from datetime import UTC, datetime

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, Unauthorized, Unreachable
from eas_watcher.machine.remedies import REDIRECTS
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from relay.watch.accounts import Door
from relay.watch.credential_check import CheckResult, Finding, check_credential
from tests.unit.eas_watcher.seeker import Seeker

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANN = BasicCredential("ann", "correct horse")
ACCOUNT = Account(
    MailboxId("m"), "https://mail.example.com/Microsoft-Server-ActiveSync", "ann", DeviceId("A" * 32), ANN
)
OFFER = {"ms-asprotocolversions": "14.1,16.1", "ms-asprotocolcommands": "FolderSync,Ping,Sync"}


GOOD = HttpReply(200, OFFER, b"", ())
REFUSED = HttpReply(401, {}, b"", ())


class Server:
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


async def judge(server: Server, door: Door) -> Finding:
    return await check_credential(ACCOUNT, server, server, door, NOW)


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (GOOD, Finding(CheckResult.ACCEPTED, url=ACCOUNT.url)),
        (REFUSED, Finding(CheckResult.REFUSED)),
        (HttpReply(503, {}, b"", ()), Finding(CheckResult.UNKNOWN, "the server cannot serve now (HTTP 503)")),
        (Unreachable("no connection: refused"), Finding(CheckResult.UNKNOWN, "no connection: refused")),
        (
            AccessDenied("no ticket", Reason.KERBEROS_TICKET),
            Finding(CheckResult.UNKNOWN, "no ticket", Reason.KERBEROS_TICKET),
        ),
        (AccessDenied("not here", Reason.HTTP_404), Finding(CheckResult.UNKNOWN, "not here", Reason.HTTP_404)),
    ],
)
async def test_one_question_gives_the_verdict(answer: HttpReply | EasError, finding: Finding) -> None:
    server = Server(answer)

    assert await judge(server, Door(unguarded=False)) == finding

    assert [request.method for request in server.asked] == ["OPTIONS"]
    assert server.asked[0].headers["Authorization"] == ANN.authorization()


def sent_to(host: str) -> HttpReply:
    return HttpReply(451, {"x-ms-location": f"https://{host}/eas"}, b"", ())


async def test_a_server_that_sends_the_mailbox_to_an_allowed_host_leaves_the_verdict_to_that_one() -> None:
    hosts = frozenset({"mail2.example.com"})
    server = Server(sent_to("mail2.example.com"), GOOD, REFUSED)

    finding = await check_credential(ACCOUNT, server, server, Door(unguarded=True), NOW, hosts)

    assert finding == Finding(CheckResult.ACCEPTED, url="https://mail2.example.com/eas")
    assert [request.url for request in server.asked] == [ACCOUNT.url, *["https://mail2.example.com/eas"] * 2]


ABSENT = HttpReply(404, {}, b"", ())
NEW = "https://mail2.example.com/eas"


async def seek(server: Server, seeker: Seeker) -> Finding:
    hosts = frozenset({"mail2.example.com"})
    return await check_credential(ACCOUNT, server, server, Door(unguarded=False), NOW, hosts, seeker)


async def test_a_server_that_has_the_mailbox_no_longer_leaves_the_verdict_to_the_one_that_has_it() -> None:
    server = Server(ABSENT, GOOD, REFUSED)

    assert await seek(server, Seeker(NEW)) == Finding(CheckResult.ACCEPTED, url=NEW)

    assert [request.url for request in server.asked] == [ACCOUNT.url, NEW, NEW]


async def test_a_candidate_that_autodiscover_refuses_is_refused() -> None:
    server = Server(ABSENT)

    assert (await seek(server, Seeker(Unauthorized("no")))).verdict is CheckResult.REFUSED
    assert len(server.asked) == 1


async def test_a_candidate_whose_mailbox_is_nowhere_has_no_verdict() -> None:
    finding = await seek(Server(ABSENT), Seeker(ACCOUNT.url))

    assert finding.verdict is CheckResult.UNKNOWN
    assert finding.detail.endswith("; looked for elsewhere: Autodiscover names the same URL")


async def test_a_server_that_denies_a_candidate_otherwise_has_the_mailbox() -> None:
    seeker = Seeker(NEW)

    assert (await seek(Server(HttpReply(403, {}, b"", ())), seeker)).verdict is CheckResult.UNKNOWN
    assert not seeker.shown


async def test_no_candidate_is_shown_to_a_host_that_is_not_allowed() -> None:
    server = Server(sent_to("evil.example.net"))

    finding = await check_credential(
        ACCOUNT, server, server, Door(unguarded=False), NOW, frozenset({"mail2.example.com"})
    )

    assert finding.verdict is CheckResult.UNKNOWN
    assert len(server.asked) == 1


async def test_servers_that_send_a_candidate_round_in_circles_are_left() -> None:
    server = Server(*[sent_to("mail2.example.com")] * 9)

    finding = await check_credential(
        ACCOUNT, server, server, Door(unguarded=False), NOW, frozenset({"mail2.example.com"})
    )

    assert finding.verdict is CheckResult.UNKNOWN
    assert len(server.asked) == REDIRECTS + 1


async def test_an_answer_that_names_no_versions_proves_nothing() -> None:
    finding = await judge(Server(HttpReply(200, {}, b"", ())), Door(unguarded=False))

    assert finding.verdict is CheckResult.UNKNOWN


@pytest.mark.parametrize("refusal", [REFUSED, HttpReply(403, {}, b"", ())])
async def test_a_server_is_asked_once_whether_it_guards_options(refusal: HttpReply) -> None:
    door, server = Door(), Server(GOOD, refusal, GOOD)

    assert (await judge(server, door)).verdict is CheckResult.ACCEPTED
    assert (await judge(server, door)).verdict is CheckResult.ACCEPTED

    with_credential = ["Authorization" in request.headers for request in server.asked]
    assert with_credential == [True, False, True]
    assert door.unguarded is False


@pytest.mark.parametrize(
    ("commands", "asked"),
    [("FolderSync,Ping,Provision,Sync", "Provision"), ("FolderSync,Ping,Settings,Sync", "Settings")],
)
async def test_a_server_that_tells_everybody_must_take_a_command_too(commands: str, asked: str) -> None:
    offer = HttpReply(200, OFFER | {"ms-asprotocolcommands": commands}, b"", ())
    server = Server(offer, offer, REFUSED)

    assert (await judge(server, Door())).verdict is CheckResult.REFUSED

    assert f"Cmd={asked}&" in server.asked[2].url
    assert server.asked[2].headers["Authorization"] == ANN.authorization()


async def test_a_command_that_is_taken_is_a_proof() -> None:
    offer = HttpReply(200, OFFER | {"ms-asprotocolcommands": "FolderSync,Ping,Provision,Sync"}, b"", ())

    finding = await judge(Server(offer, HttpReply(200, {}, b"\x03", ())), Door(unguarded=True))

    assert finding.verdict is CheckResult.ACCEPTED


async def test_nothing_is_proved_while_it_is_unknown_whether_options_is_guarded() -> None:
    door = Door()

    finding = await judge(Server(GOOD, Unreachable("cut")), door)

    assert finding == Finding(CheckResult.UNKNOWN, "cut")
    assert door.unguarded is None


async def test_whether_options_is_guarded_is_not_asked_over_the_candidates_own_transport() -> None:
    own, strangers, door = Server(GOOD), Server(REFUSED), Door()

    assert (await check_credential(ACCOUNT, own, strangers, door, NOW)).verdict is CheckResult.ACCEPTED

    assert (len(own.asked), len(strangers.asked), door.unguarded) == (1, 1, False)


async def test_a_credential_that_is_void_for_certain_is_refused() -> None:
    finding = await judge(Server(CredentialVoid("expired", Reason.CERTIFICATE_EXPIRED)), Door(unguarded=False))

    assert finding.verdict is CheckResult.REFUSED
