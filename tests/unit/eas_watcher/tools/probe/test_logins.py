import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.runtime.account import Account
from eas_watcher.tools.probe.finding import Grade
from eas_watcher.tools.probe.logins import question, read_ways

URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
ISSUER = 'Bearer authorization_uri="https://login.example.com/authorize"'


def test_no_user_is_tried_by_the_question() -> None:
    account = Account(MailboxId("m"), URL, "ann", DeviceId("D"), BasicCredential("ann", "secret"))

    request = question(account)

    assert request.method == "OPTIONS"
    assert request.headers["Authorization"] == "Bearer"
    assert "ann" not in request.url


@pytest.mark.parametrize(
    ("status", "header", "grade", "text"),
    [
        (401, "Negotiate,Basic realm=x", Grade.GOOD, "the server offers Negotiate, Basic"),
        (401, f"{ISSUER},Basic realm=x", Grade.GOOD, "offers Bearer, Basic; it wants tokens of login.example.com"),
        (401, "Bearer", Grade.NOTE, "no issuer of tokens"),
        (401, "", Grade.NOTE, "names no way"),
        (200, "", Grade.SKIPPED, "HTTP 200"),
        (503, "", Grade.SKIPPED, "HTTP 503"),
    ],
)
def test_what_the_server_offers_is_told(status: int, header: str, grade: Grade, text: str) -> None:
    finding = read_ways(HttpReply(status, {"www-authenticate": header}, b""))

    assert finding.grade is grade
    assert text in finding.text
