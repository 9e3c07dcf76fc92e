import pytest

from eas_watcher.breaker import Away, Breaker, ByRate, Failure
from eas_watcher.errors import AccessDenied, EasError, ServerBusy, Unauthorized, Unreachable
from eas_watcher.reasons import Reason
from eas_watcher.server.breaker import DISTINCT, concerns_server, read_failure, rules, source_of
from tests.unit.eas_watcher.running import Middle

AWAY = Unreachable("no connection: Connection refused", reached=False)
LOST = Unreachable("connection lost", 3.0)
BUSY = ServerBusy("busy", shared=True)


ELSEWHERE = Unreachable("the token endpoint: no connection", reached=False)
ELSEWHERE.elsewhere = True


@pytest.mark.parametrize(
    ("error", "concerns"),
    [
        (AWAY, True),
        (LOST, True),
        (Unreachable("connection lost", 0.1, stale=True), False),
        (BUSY, True),
        (ServerBusy(Reason.SERVER_BUSY, 60.0, reached=False), False),
        (Unauthorized("no"), False),
        (AccessDenied("no", Reason.HTTP_403), False),
        (ELSEWHERE, False),
    ],
)
def test_knows_which_failures_concern_the_server(error: EasError, *, concerns: bool) -> None:
    assert concerns_server(error) is concerns


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (AWAY, Failure(str(AWAY), certain=True)),
        (LOST, Failure("connection lost")),
        (BUSY, Failure("busy")),
        (
            Unreachable("the server did not take the request", reached=False, connection=1),
            Failure("the server did not take the request"),
        ),
        (ServerBusy("busy", 600.0, shared=True), Failure("busy", retry_after=600.0)),
    ],
)
def test_only_a_request_that_no_server_took_is_certain(error: EasError, failure: Failure) -> None:
    assert read_failure(error) == failure


def test_several_mailboxes_within_half_a_minute_show_that_their_server_is_away() -> None:
    breaker = Breaker(rules(20.0))
    for name in range(DISTINCT):
        assert not breaker.away
        breaker = breaker.failed(name, read_failure(LOST), 14.0 * name, Middle())

    assert breaker.state == Away(str(LOST), 30.0, 1)
    assert breaker.rules.returns == ByRate(20.0)


def test_a_connection_that_a_hundred_mailboxes_shared_is_one_failure() -> None:
    breaker = Breaker(rules(20.0))
    for connection in (1, 1, 2):
        for mailbox in range(50):
            lost = Unreachable("connection lost", 60.0, connection=connection)
            breaker = breaker.failed(source_of(lost, mailbox), read_failure(lost), 1.0, Middle())
    assert not breaker.away

    lost = Unreachable("connection lost", 60.0, connection=3)
    assert breaker.failed(source_of(lost, 7), read_failure(lost), 2.0, Middle()).away
    assert source_of(LOST, 7) == source_of(BUSY, 7) == 7
