"""Watches over HTTP/2 against nginx before SOGo: shared connections, GOAWAY, and a proxy that starts again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from eas_watcher.machine.memory import Change
from eas_watcher.names import CollectionClass
from eas_watcher.transport.http2 import Http2Connection
from tests.interop.sogo.daemons import Service
from tests.interop.sogo.server import SogoServer, User
from tests.interop.watching import Watches, open_watches, until_held
from tests.waiting import until

MAIL = Change(CollectionClass.EMAIL, 1)
NUMBER = 3


@pytest.fixture
async def watches(sogo: SogoServer) -> AsyncIterator[Watches]:
    async with open_watches(sogo.url, sogo.ca_file, http2=True) as opened:
        yield opened


@pytest.fixture
def users(sogo: SogoServer) -> list[User]:
    return [sogo.add_user(f"shared{len(sogo.users) + 1:02}") for _ in range(NUMBER)]


async def test_mailboxes_share_a_connection_and_each_mail_is_one_change(
    sogo: SogoServer, users: list[User], watches: Watches
) -> None:
    diaries = [watches.start(user) for user in users]
    await until_held(sogo, *users)
    assert watches.transport.used() == {"http/1.1": (0, 0), "h2": (1, NUMBER)}

    for user, diary in zip(users, diaries, strict=True):
        held = diary.pings
        sogo.deliver(user.name)
        await diary.until_next_ping(held)
        assert diary.changes == [MAIL]
    await until_held(sogo, *users)

    assert watches.transport.used() == {"http/1.1": (0, 0), "h2": (1, NUMBER)}
    answered = [request for user in users for request in sogo.requests(user.name)]
    assert {request.version for request in answered} == {"HTTP/2.0"}
    assert {request.status for request in answered} == {200}


async def test_a_watch_that_stops_resets_its_stream_and_leaves_the_others(
    sogo: SogoServer, users: list[User], watches: Watches
) -> None:
    diaries = [watches.start(user) for user in users]
    await until_held(sogo, *users)
    await watches.stop(users[0])

    assert watches.transport.used()["h2"] == (1, NUMBER - 1)
    await until(lambda: [request.status for request in sogo.requests(users[0].name)][-1:] == [499])  # nginx: hung up
    sogo.deliver(users[1].name)
    await diaries[1].until(lambda diary: diary.changes == [MAIL])


async def test_pings_end_by_themselves_after_a_goaway_and_the_next_use_a_new_connection(
    sogo: SogoServer, users: list[User], watches: Watches
) -> None:
    diaries = [watches.start(user) for user in users]
    await until_held(sogo, *users)
    # nginx reads its configuration again: the old worker says GOAWAY and ends when its requests have ended.
    os.kill(int((sogo.logs.parent / "run" / "nginx.pid").read_text()), signal.SIGHUP)
    (before,) = watches.transport._all
    assert isinstance(before, Http2Connection)
    await until(lambda: before._client.going)
    held = diaries[0].pings
    sogo.deliver(users[0].name)
    await diaries[0].until_next_ping(held)
    await until_held(sogo, users[0])

    assert diaries[0].changes == [MAIL]
    assert watches.transport.used()["h2"] == (2, NUMBER)
    assert all(diary.watching for diary in diaries)
    for user, diary in zip(users[1:], diaries[1:], strict=True):
        held = diary.pings
        sogo.deliver(user.name)
        await diary.until_next_ping(held)
    await until_held(sogo, *users)
    assert watches.transport.used()["h2"] == (1, NUMBER)


async def test_a_proxy_that_starts_anew_loses_no_mail(sogo: SogoServer, users: list[User], watches: Watches) -> None:
    diaries = [watches.start(user) for user in users]
    await until_held(sogo, *users)
    await asyncio.to_thread(sogo.stop, Service.NGINX, kill=True)
    for user in users:
        sogo.deliver(user.name)
    await asyncio.to_thread(sogo.start, Service.NGINX)
    for diary in diaries:
        await diary.until(lambda diary: diary.changes == [MAIL])

    assert watches.transport.used()["h2"][0] == 1


async def test_a_wrong_password_is_refused_on_its_stream_only(
    sogo: SogoServer, users: list[User], watches: Watches
) -> None:
    watches.start(users[0])
    await until_held(sogo, users[0])
    wrong = watches.start(User(users[1].name, "wrong"))
    await wrong.until(lambda diary: diary.condition is not None and not diary.watching)

    assert watches.transport.used()["h2"][0] == 1
    assert [request.status for request in sogo.requests("-")][-1:] == [401] or watches.transport.used()["h2"][1] == 1
