from datetime import UTC, datetime

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import EasError, Unreachable
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.ports import HttpRequest
from eas_watcher.wire import Account
from relay.watch.proof import Finding, Verdict, prove, same

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANN = BasicCredential("ann", "correct horse")
ACCOUNT = Account(
    MailboxId("m"), "https://mail.example.com/Microsoft-Server-ActiveSync", "ann", DeviceId("A" * 32), ANN
)
OFFER = {"ms-asprotocolversions": "14.1,16.1", "ms-asprotocolcommands": "FolderSync,Ping,Sync"}


class Server:
    def __init__(self, answer: HttpReply | EasError) -> None:
        self.answer = answer
        self.asked: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.asked.append(request)
        if isinstance(self.answer, EasError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (HttpReply(200, OFFER, b"", ()), Finding(Verdict.ACCEPTED)),
        (HttpReply(401, {}, b"", ()), Finding(Verdict.REFUSED)),
        (
            HttpReply(503, {}, b"", ()),
            Finding(Verdict.UNKNOWN, "the server cannot serve now (HTTP 503)"),
        ),
        (Unreachable("no connection: refused"), Finding(Verdict.UNKNOWN, "no connection: refused")),
    ],
)
async def test_one_question_gives_the_verdict(answer: HttpReply | EasError, finding: Finding) -> None:
    server = Server(answer)

    assert await prove(ACCOUNT, server, NOW) == finding

    assert [request.method for request in server.asked] == ["OPTIONS"]
    assert server.asked[0].headers["Authorization"] == ANN.authorization()


async def test_an_answer_that_names_no_versions_proves_nothing() -> None:
    finding = await prove(ACCOUNT, Server(HttpReply(200, {}, b"", ())), NOW)

    assert finding.verdict is Verdict.UNKNOWN


def test_credentials_are_the_same_only_when_user_and_password_are() -> None:
    assert same(ANN, BasicCredential("ann", "correct horse"))
    assert not same(ANN, BasicCredential("ann", "correct horsf"))
    assert not same(ANN, BasicCredential("ben", "correct horse"))
