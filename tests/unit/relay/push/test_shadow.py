import asyncio
from datetime import timedelta
from typing import Any

import pytest

from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Mark, RegistrationId
from relay.domain.outcome import Delivered, Outcome, PushEnd, Reach, RetryLater, Shadowed
from relay.domain.shadow import PushMode, Shadow
from relay.push.shadow import AWAY, ShadowingSender
from tests.unit.relay.push.pushes import due_push

LIVE = PushMode()
DARK = PushMode(shadow=True)
ONE_SERVER = PushMode(shadow=True, live_servers=frozenset({"main"}))


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


def send(mode: PushMode, servers: Servers | None = None, **changes: Any) -> tuple[PushEnd, int]:
    """Send a push; return how it ended, and how many pushes the provider got."""
    provider = Provider()
    sender = ShadowingSender(provider, Shadow(mode), servers or Servers())
    return asyncio.run(sender.send(due_push(**changes))), len(provider.sent)


def test_nothing_of_a_push_that_is_held_back_goes_to_the_provider() -> None:
    assert send(DARK) == (Shadowed(), 0)
    assert send(LIVE) == (Delivered(), 1)
    assert send(DARK, mark=Mark.CHALLENGE) == (Delivered(), 1)


def test_what_was_set_in_shadow_mode_is_held_back_after_its_end() -> None:
    shadow, provider = Shadow(DARK), Provider()
    push = due_push()
    shadow.follow(LIVE, push.last_at + timedelta(hours=1))

    assert asyncio.run(ShadowingSender(provider, shadow, Servers()).send(push)) == Shadowed()
    assert not shadow.off


@pytest.mark.parametrize(("mode", "asked"), [(LIVE, 0), (DARK, 0), (ONE_SERVER, 1)])
def test_the_database_is_asked_only_where_the_mail_server_decides(mode: PushMode, asked: int) -> None:
    servers = Servers()
    send(mode, servers)

    assert servers.asked == asked


@pytest.mark.parametrize(
    ("server", "end"), [("main", (Delivered(), 1)), ("branch", (Shadowed(), 0)), (None, (Shadowed(), 0))]
)
def test_the_mail_server_of_the_mailbox_decides(server: str | None, end: tuple[PushEnd, int]) -> None:
    assert send(ONE_SERVER, Servers(server)) == end


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), TimeoutError()])
def test_a_push_waits_while_the_database_cannot_say_where_it_belongs(fault: Exception) -> None:
    later = RetryLater("the database is away", after=AWAY, reach=Reach.HERE)
    assert send(ONE_SERVER, Servers(fault)) == (later, 0)
