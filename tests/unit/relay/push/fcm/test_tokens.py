import asyncio
import logging
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from relay.domain.outcome import Refused, RetryLater
from relay.push.fcm.tokens import AccessToken, AccessTokens, TokenNotGiven

BEGAN = datetime(2026, 11, 23, 8, tzinfo=UTC)

pytestmark = pytest.mark.looptime


class Google:
    """An endpoint that makes tokens with a lifetime of an hour, each after a second, or fails."""

    def __init__(self) -> None:
        self.made = 0
        self.failure: Exception | None = None

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=asyncio.get_running_loop().time())

    async def mint(self) -> AccessToken:
        self.made += 1
        name = f"token-{self.made}"
        await asyncio.sleep(1)
        if self.failure is not None:
            raise self.failure
        return AccessToken(name, self.now() + timedelta(hours=1))


def opened() -> tuple[Google, AccessTokens]:
    google = Google()
    return google, AccessTokens(google.mint, google.now, Random(1))


async def test_pushes_at_the_same_time_share_one_renewal() -> None:
    google, tokens = opened()

    given = await asyncio.gather(*(tokens.get() for _ in range(50)))

    assert {token.value for token in given} == {"token-1"}
    assert google.made == 1


async def test_a_valid_token_is_kept_until_five_or_six_minutes_before_its_expiry() -> None:
    google, tokens = opened()
    await tokens.get()

    await asyncio.sleep(3600 - 361)
    assert (await tokens.get()).value == "token-1"
    assert google.made == 1

    await asyncio.sleep(62)
    assert (await tokens.get()).value == "token-1"  # still valid while the next one is made
    await asyncio.sleep(2)
    assert (await tokens.get()).value == "token-2"


async def test_a_token_about_to_expire_is_not_used() -> None:
    _, tokens = opened()
    await tokens.get()

    await asyncio.sleep(3595)

    assert (await tokens.get()).value == "token-2"


async def test_a_refused_token_is_renewed_once_for_all_pushes() -> None:
    google, tokens = opened()
    first = await tokens.get()

    renewed = await asyncio.gather(*(tokens.renew(first) for _ in range(10)))

    assert {token.value for token in renewed} == {"token-2"}
    assert (await tokens.renew(first)).value == "token-2"
    assert google.made == 2


async def test_a_cancelled_push_does_not_disturb_the_others() -> None:
    google, tokens = opened()

    async with asyncio.TaskGroup() as tasks:
        impatient = tasks.create_task(tokens.get())
        patient = tasks.create_task(tokens.get())
        await asyncio.sleep(0.5)
        impatient.cancel()

    assert patient.result().value == "token-1"
    assert google.made == 1


async def test_a_failure_is_repeated_without_an_attempt_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    google, tokens = opened()
    google.failure = TokenNotGiven(Refused("token-refused", "look", channel=True))
    with caplog.at_level(logging.WARNING), pytest.raises(TokenNotGiven):
        await tokens.get()
    assert [record.message for record in caplog.records] == ["no FCM access token"]

    for _ in range(3):
        with pytest.raises(TokenNotGiven, match="token-refused"):
            await tokens.get()
    assert google.made == 1

    google.failure = None
    await asyncio.sleep(5)
    assert (await tokens.get()).value == "token-2"


async def test_a_failed_early_renewal_leaves_the_old_token_in_use() -> None:
    google, tokens = opened()
    await tokens.get()
    await asyncio.sleep(3300)
    google.failure = TokenNotGiven(RetryLater("timed-out"))

    for _ in range(6):
        assert (await tokens.get()).value == "token-1"
        await asyncio.sleep(1)
    assert google.made == 2  # the second call came within the quiet time

    google.failure = None
    await asyncio.sleep(3)
    await tokens.get()
    await asyncio.sleep(2)
    assert (await tokens.get()).value == "token-3"


async def test_a_token_with_a_short_lifetime_is_renewed_after_half_of_it() -> None:
    google = Google()

    async def mint() -> AccessToken:
        google.made += 1
        return AccessToken(f"token-{google.made}", google.now() + timedelta(seconds=60))

    tokens = AccessTokens(mint, google.now, Random(1))
    await tokens.get()
    await asyncio.sleep(29)
    await tokens.get()
    await asyncio.sleep(0)
    assert google.made == 1

    await asyncio.sleep(1)
    await tokens.get()
    await asyncio.sleep(0)
    assert google.made == 2


async def test_an_unforeseen_error_reaches_the_push_that_waits() -> None:
    google, tokens = opened()
    google.failure = KeyError("bug")

    with pytest.raises(KeyError):
        await tokens.get()


async def test_closing_cancels_the_renewal() -> None:
    google, tokens = opened()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(tokens.get())
        await asyncio.sleep(0.5)
        await tokens.close()

    assert waiting.cancelled()
    await tokens.close()
    assert google.made == 1


def test_a_token_does_not_print() -> None:
    assert "secret" not in repr(AccessToken("secret", BEGAN))
