import asyncio
from datetime import timedelta
from typing import Any

import pytest

from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Mark, RegistrationId
from relay.domain.outcome import Delivered, Outcome, PushEnd, Reach, RetryLater, Shadowed
from relay.domain.reasons import Cause
from relay.push.shadow import AWAY, FORMER, SLACK, PushMode, Shadow, ShadowingSender
from tests.unit.relay.push.pushes import BEGAN, due_push

LIVE = PushMode()
DARK = PushMode(shadow=True)
MAIL, CHAT = "com.example.mail", "com.example.chat"
SOON = BEGAN + timedelta(minutes=1)


class Provider:
    def __init__(self) -> None:
        self.sent: list[DuePush] = []

    async def send(self, push: DuePush) -> Outcome:
        self.sent.append(push)
        return Delivered()


class Servers:
    """Knows the mail server of every registration, or fails as it is told."""

    def __init__(self, answer: str | Exception | None = "main") -> None:
        self.answer = answer
        self.asked = 0

    async def server_of(self, registration_id: RegistrationId) -> str | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def send(shadow: Shadow, servers: Servers | None = None, **changes: Any) -> tuple[PushEnd, int]:
    """Send a push; return how it ended, and how many pushes the provider got."""
    provider = Provider()
    sender = ShadowingSender(provider, shadow, servers or Servers())
    return asyncio.run(sender.send(due_push(**changes))), len(provider.sent)


@pytest.mark.parametrize(
    ("mode", "app", "server", "held"),
    [
        (LIVE, MAIL, "main", False),
        (PushMode(live_apps=frozenset({CHAT})), MAIL, "main", False),
        (DARK, MAIL, "main", True),
        (DARK, MAIL, None, True),
        (PushMode(shadow=True, live_apps=frozenset({MAIL})), MAIL, "main", False),
        (PushMode(shadow=True, live_apps=frozenset({CHAT})), MAIL, "main", True),
        (PushMode(shadow=True, live_servers=frozenset({"main"})), MAIL, "main", False),
        (PushMode(shadow=True, live_servers=frozenset({"main"})), MAIL, "branch", True),
        (PushMode(shadow=True, live_servers=frozenset({"main"})), MAIL, None, True),
        (PushMode(shadow=True, live_apps=frozenset({CHAT}), live_servers=frozenset({"main"})), CHAT, "branch", False),
    ],
)
def test_a_push_leaves_if_its_app_or_its_mail_server_is_live(
    mode: PushMode, app: str, server: str | None, *, held: bool
) -> None:
    assert mode.holds_back(app, server) is held


def test_operators_read_what_the_mode_means() -> None:
    some = PushMode(shadow=True, live_apps=frozenset({MAIL, CHAT}), live_servers=frozenset({"main"}))

    assert PushMode(live_apps=frozenset({MAIL})).words == ""
    assert DARK.words == "shadow: no push of new items leaves; the timeline has what would have left"
    assert some.words == (
        "shadow: no push of new items leaves but for apps com.example.chat, com.example.mail and mail servers main; "
        "the timeline has what would have left"
    )


def test_nothing_of_a_push_that_is_held_back_goes_to_the_provider() -> None:
    assert send(Shadow(DARK)) == (Shadowed(), 0)
    assert send(Shadow(LIVE)) == (Delivered(), 1)


@pytest.mark.parametrize(
    "asked",
    [{"mark": Mark.TEST}, {"mark": Mark.CHALLENGE}, {"mark": Mark.ATTENTION, "cause": Cause.WIPED}],
)
def test_what_an_app_asks_for_and_a_wipe_leave_in_shadow_mode(asked: dict[str, Any]) -> None:
    assert send(Shadow(DARK), **asked) == (Delivered(), 1)


@pytest.mark.parametrize("cause", [None, Cause.CREDENTIAL, Cause.BLOCKED])
def test_other_attention_is_held_back(cause: Cause | None) -> None:
    assert send(Shadow(DARK), mark=Mark.ATTENTION, cause=cause) == (Shadowed(), 0)


@pytest.mark.parametrize(
    ("mode", "asked"),
    [
        (LIVE, 0),
        (DARK, 0),
        (PushMode(shadow=True, live_apps=frozenset({MAIL}), live_servers=frozenset({"main"})), 0),
        (PushMode(shadow=True, live_servers=frozenset({"main"})), 1),
    ],
)
def test_the_database_is_asked_only_where_the_mail_server_decides(mode: PushMode, asked: int) -> None:
    servers = Servers()
    send(Shadow(mode), servers)

    assert servers.asked == asked


@pytest.mark.parametrize(
    ("server", "end"), [("main", (Delivered(), 1)), ("branch", (Shadowed(), 0)), (None, (Shadowed(), 0))]
)
def test_the_mail_server_of_the_mailbox_decides(server: str | None, end: tuple[PushEnd, int]) -> None:
    assert send(Shadow(PushMode(shadow=True, live_servers=frozenset({"main"}))), Servers(server)) == end


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), TimeoutError()])
def test_a_push_waits_while_the_database_cannot_say_where_it_belongs(fault: Exception) -> None:
    shadow = Shadow(PushMode(shadow=True, live_servers=frozenset({"main"})))

    later = RetryLater("the database is away", after=AWAY, reach=Reach.HERE)
    assert send(shadow, Servers(fault)) == (later, 0)


def test_what_was_set_in_shadow_mode_does_not_leave_later() -> None:
    shadow = Shadow(DARK)
    shadow.follow(LIVE, SOON)

    assert send(shadow, last_at=BEGAN) == (Shadowed(), 0)
    assert send(shadow, last_at=SOON) == (Delivered(), 1)
    assert send(shadow, first_at=BEGAN, last_at=SOON + timedelta(seconds=1)) == (Delivered(), 1)


def test_what_was_set_just_before_the_change_leaves_since_its_commit_may_have_come_after_it() -> None:
    shadow = Shadow(DARK)
    shadow.follow(LIVE, SOON)

    assert send(shadow, last_at=SOON - SLACK) == (Delivered(), 1)
    assert send(shadow, last_at=SOON - SLACK - timedelta(microseconds=1)) == (Shadowed(), 0)


def test_the_way_back_to_shadow_mode_holds_at_once() -> None:
    shadow = Shadow(LIVE)
    shadow.follow(DARK, SOON)

    assert send(shadow, last_at=BEGAN) == (Shadowed(), 0)
    assert send(shadow, last_at=SOON + timedelta(hours=1)) == (Shadowed(), 0)


def test_a_server_that_goes_live_leaves_its_old_marks_behind_too() -> None:
    shadow, servers = Shadow(DARK), Servers()
    shadow.follow(PushMode(shadow=True, live_servers=frozenset({"main"})), SOON)

    assert send(shadow, servers, last_at=BEGAN) == (Shadowed(), 0)
    assert servers.asked == 0
    assert send(shadow, servers, last_at=SOON) == (Delivered(), 1)


def test_a_mode_that_stays_is_no_change_and_few_changes_are_remembered() -> None:
    shadow = Shadow(DARK)
    shadow.follow(PushMode(shadow=True), SOON)
    assert send(shadow, last_at=BEGAN) == (Shadowed(), 0)

    for number in range(FORMER):
        shadow.follow(PushMode(live_apps=frozenset({f"app-{number}"})), SOON)
    assert send(shadow, last_at=BEGAN) == (Shadowed(), 0)
    shadow.follow(LIVE, SOON)
    assert send(shadow, last_at=BEGAN) == (Delivered(), 1)
