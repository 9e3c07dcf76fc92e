from typing import Any

import pytest

from eas_watcher.errors import AccessDenied, EasError, Redirected, ServerBusy, StateLost, Unauthorized, Unreachable
from eas_watcher.machine.counters import CONFIRM_AFTER
from eas_watcher.machine.remedies import HOPELESS
from eas_watcher.machine.state import Discovering, Pinging, Policy, State, Syncing
from eas_watcher.reasons import Reason
from eas_watcher.runtime.relocation import astray, look_for
from tests.unit.eas_watcher.running import account
from tests.unit.eas_watcher.seeker import Seeker
from tests.unit.eas_watcher.watching import INBOX, watch_of

DISCOVERED = Policy(discovered=True)
ELSEWHERE = "https://new.example.com/Microsoft-Server-ActiveSync"


def syncing(**changes: Any) -> State:
    return Syncing(watch_of(policy=DISCOVERED, **changes), (INBOX.id,))


def denied(code: Reason) -> AccessDenied:
    return AccessDenied("nothing is there", code)


@pytest.mark.parametrize("code", [Reason.HTTP_404, Reason.HTTP_451, Reason.EAS_127, Reason.EAS_128])
def test_a_mailbox_that_is_not_there_is_astray_at_once(code: Reason) -> None:
    assert astray(syncing(), denied(code))


@pytest.mark.parametrize(
    "error", [denied(Reason.EAS_129), denied(Reason.HTTP_407), StateLost("forgotten"), ServerBusy("no")]
)
def test_what_says_nothing_of_the_place_is_no_sign(error: EasError) -> None:
    assert not astray(syncing(), error)


def test_a_mailbox_of_a_configured_server_is_where_the_operator_says() -> None:
    assert not astray(Syncing(watch_of(), (INBOX.id,)), denied(Reason.HTTP_404))


def test_a_denied_access_is_a_sign_when_provisioning_has_not_helped() -> None:
    assert not astray(syncing(), denied(Reason.HTTP_403))
    assert astray(syncing(remedies=1), denied(Reason.HTTP_403))
    assert astray(syncing(provision_due=True), denied(Reason.HTTP_403))


def test_a_refusal_is_a_sign_when_it_is_the_last() -> None:
    refused = Unauthorized("refused")

    assert not astray(syncing(refusals=len(CONFIRM_AFTER) - 1), refused)
    assert astray(syncing(refusals=len(CONFIRM_AFTER)), refused)


@pytest.mark.parametrize("error", [ServerBusy("the server cannot serve now (HTTP 500)"), Unreachable("no connection")])
def test_a_server_that_fails_on_and_on_is_a_sign(error: EasError) -> None:
    assert not astray(syncing(failures=HOPELESS - 1), error)
    assert astray(syncing(failures=HOPELESS), error)
    assert astray(Discovering(watch_of(policy=DISCOVERED, failures=HOPELESS)), error)


def test_a_lost_ping_and_a_server_that_names_a_time_are_no_signs() -> None:
    watch = watch_of(policy=DISCOVERED, failures=HOPELESS)

    assert not astray(Pinging(watch), Unreachable("connection lost"))
    assert not astray(syncing(failures=HOPELESS), ServerBusy("the mailbox is full (HTTP 507)", 900.0))
    assert astray(Pinging(watch), denied(Reason.HTTP_404))


async def test_a_mailbox_that_is_elsewhere_is_a_redirect() -> None:
    seeker = Seeker(ELSEWHERE)

    understood, note = await look_for(account(), seeker, denied(Reason.HTTP_404))

    assert note == ""
    assert isinstance(understood, Redirected)
    assert understood.location == ELSEWHERE
    assert seeker.shown == [True]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (account().url, "Autodiscover names the same URL"),
        (
            AccessDenied("no host of [autodiscover] knows the mailbox", Reason.AUTODISCOVER),
            "no host of [autodiscover] knows",
        ),
        (Unreachable("no connection: refused"), "no connection: refused"),
    ],
)
async def test_a_mailbox_that_is_nowhere_else_keeps_its_failure(answer: str | EasError, found: str) -> None:
    error = denied(Reason.HTTP_404)

    understood, note = await look_for(account(), Seeker(answer), error)

    assert understood is error
    assert str(error) == "nothing is there"
    assert note.startswith(f"looked for elsewhere: {found}")


async def test_a_credential_that_autodiscover_refuses_counts_as_refused() -> None:
    refused = Unauthorized("Autodiscover refuses the credential (HTTP 401)")

    assert await look_for(account(), Seeker(refused), denied(Reason.HTTP_404)) == (refused, "")


async def test_a_credential_that_was_refused_before_is_not_shown_to_autodiscover_either() -> None:
    seeker = Seeker(Unauthorized("no login"))

    await look_for(account(), seeker, denied(Reason.HTTP_404), refused=True)

    assert seeker.shown == [False]


async def test_a_refused_credential_is_not_shown_once_more() -> None:
    error, seeker = (
        Unauthorized("the server refuses the credential (HTTP 401)"),
        Seeker(Unauthorized("no login")),
    )

    assert await look_for(account(), seeker, error) == (error, "looked for elsewhere: no login")
    assert seeker.shown == [False]
