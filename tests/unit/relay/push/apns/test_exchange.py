import asyncio

import pytest

from relay.push.apns.exchange import BODY_LIMIT, Answer, Call, MaybeSent, NotSent


async def under_way() -> Call:
    return Call(asyncio.get_running_loop().create_future(), "5f0e", "bearer x")


async def test_an_answer_is_put_together_of_its_frames() -> None:
    call = await under_way()

    call.begin([(b":status", b"410"), (b"apns-id", b"5f0e"), (b"retry-after", b"30")])
    call.take(b'{"reason":"Unregis')
    call.take(b'tered","timestamp":1700000000000}')
    call.finish()

    answer = await call.future
    assert (answer.status, answer.description, answer.timestamp) == ("410", "Unregistered", 1700000000000)
    assert (answer.notification_id, answer.authorization, answer.retry_after) == ("5f0e", "bearer x", "30")


async def test_an_endless_body_is_not_kept() -> None:
    call = await under_way()

    for _ in range(100):
        call.take(bytes(BODY_LIMIT // 2))

    assert len(call._body) == BODY_LIMIT


async def test_nobody_is_told_twice() -> None:
    answered, failed = await under_way(), await under_way()

    answered.finish()
    answered.fail(MaybeSent("connection-lost"))
    failed.fail(NotSent("stream-refused"))
    failed.finish()

    assert isinstance(await answered.future, Answer)
    with pytest.raises(NotSent, match="stream-refused"):
        await failed.future


async def test_who_stopped_waiting_is_not_told() -> None:
    call = await under_way()
    call.future.cancel()

    call.finish()
    call.fail(MaybeSent("connection-lost"))

    assert call.future.cancelled()
