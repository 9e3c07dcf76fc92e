import pytest

from eas_watcher.commands.request import HttpReply
from eas_watcher.tools.probe.finding import Grade
from eas_watcher.tools.probe.logins import read_schemes_offered

URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
ISSUER = 'Bearer authorization_uri="https://login.example.com/authorize"'


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
def test_what_the_server_offers_is_found(status: int, header: str, grade: Grade, text: str) -> None:
    finding = read_schemes_offered(HttpReply(status, {"www-authenticate": header}, b""))

    assert finding.grade is grade
    assert text in finding.text
