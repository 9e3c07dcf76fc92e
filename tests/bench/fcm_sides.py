"""Push through one of four ways to the server of a bench, and print pushes a second and CPU microseconds a push.

Each way runs in a process of its own, so that the CPU time is its alone; all send the same data messages, and all trust
the server by REQUESTS_CA_BUNDLE or their own setting.
"""

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Delivered
from relay.process import gc_tuning
from relay.process.clock import now
from relay.push.egress.leaving import Egress, Leaving
from relay.push.egress.log import Limits, open_egress_log
from relay.push.fcm.config import FcmAccount, FcmConfig
from relay.push.fcm.sender import FcmSender
from relay.push.payload import FcmMessage, Notice, WebPushMessage
from tests.unit.relay.push.pushes import due_push

AT_ONCE: Final = 32
"""Pushes in flight, for the relay and for pyfcm's threads; 8 and 64 threads are no faster."""
BATCH: Final = 500  # messages of one send_each, its most
MEGABYTES: Final = 64 * 2**20
WARM: Final = 500  # pushes before the clock runs: connections, tokens, caches


@dataclass
class Server:
    """The address of the server."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def pushes(count: int) -> list[DuePush]:
    """Make pushes, each to a phone of its own."""
    return [due_push(number, platform=Platform.FCM, device_token=f"{number:0152x}") for number in range(count)]


@contextmanager
def measured(count: int) -> Iterator[None]:
    """Print the figures of the block."""
    gc.collect()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    yield
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"per_s": count / seconds, "cpu_us": cpu / count * 1e6}), flush=True)  # noqa: T201 -- the answer


class NoEgress:
    """An egress log that keeps nothing, because the others have none."""

    def apns(self, pushes: Sequence[Leaving]) -> None:
        pass

    def fcm(self, app: str, device_token: str, body: bytes) -> None:
        pass

    def webpush(self, app: str, device_token: str, message: WebPushMessage) -> None:
        pass


def relay(server: Server, count: int) -> None:
    """Send pushes as the relay does, without the egress log, which the others lack."""
    uvloop.run(_push(server, count, NoEgress()))


def relay_logged(server: Server, count: int) -> None:
    """Send pushes as the relay does."""
    with open_egress_log(server.folder / "egress", now, Limits(MEGABYTES)) as egress:
        uvloop.run(_push(server, count, egress))


async def _push(server: Server, count: int, egress: Egress) -> None:
    account = FcmAccount(frozenset({"com.example.mail"}), server.folder / "fcm.json")
    config = FcmConfig((account,), server.url, server.folder / "ca.pem", in_flight=AT_ONCE)
    async with FcmSender(config, now, Random(1), egress) as sender:
        await _send(sender, pushes(WARM), config.in_flight)
        ready = pushes(count)
        gc_tuning.freeze_heap()
        with measured(count):
            await _send(sender, ready, config.in_flight)


async def _send(sender: FcmSender, every: list[DuePush], in_flight: int) -> None:
    waiting = iter(every)

    async def place() -> None:
        for push in waiting:
            outcome = await sender.send(push)
            if not isinstance(outcome, Delivered):
                raise TypeError(outcome)

    async with asyncio.TaskGroup() as places:
        for _ in range(in_flight):
            places.create_task(place())


def pyfcm(server: Server, count: int) -> None:
    """Send pushes with pyfcm's notify, in threads."""
    from pyfcm import FCMNotification  # noqa: PLC0415  # only this way needs it

    messages: Any = FCMNotification(service_account_file=str(server.folder / "fcm.json"))
    messages.FCM_END_POINT_BASE = f"{server.url}/v1/projects"

    def send(push: DuePush) -> None:
        message = FcmMessage(Notice.of(push))
        messages.notify(fcm_token=push.device_token, data_payload=message.data, android_config=message.android)

    send(pushes(1)[0])  # its threads must not read the account file at once
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(send, pushes(WARM)))
        ready = pushes(count)
        with measured(count):
            list(threads.map(send, ready))


def firebase(server: Server, count: int) -> None:
    """Send pushes with firebase-admin's send_each to the server, with the pool that it has for Google's own host."""
    import firebase_admin  # noqa: PLC0415  # only this way needs it
    from firebase_admin import credentials, messaging  # noqa: PLC0415
    from requests.adapters import HTTPAdapter  # noqa: PLC0415

    service_class: Any = messaging._MessagingService
    service_class.FCM_URL = f"{server.url}/v1/projects/{{0}}/messages:send"
    app: Any = firebase_admin.initialize_app(credentials.Certificate(str(server.folder / "fcm.json")))
    service: Any = messaging._get_messaging_service(app)
    service._client.session.mount(server.url, HTTPAdapter(pool_connections=100, pool_maxsize=100))

    def message(push: DuePush) -> Any:
        wanted = FcmMessage(Notice.of(push))
        android = messaging.AndroidConfig(
            priority=wanted.android["priority"].lower(),
            collapse_key=wanted.android["collapse_key"],
            ttl=wanted.notice.lifetime,
        )
        return messaging.Message(token=push.device_token, data=wanted.data, android=android)

    def send(every: list[DuePush]) -> None:
        for first in range(0, len(every), BATCH):
            answer = messaging.send_each([message(push) for push in every[first : first + BATCH]], app=app)
            if answer.failure_count:
                raise TypeError(next(each.exception for each in answer.responses if each.exception))

    send(pushes(WARM))
    ready = pushes(count)
    with measured(count):
        send(ready)


SIDES: Final[dict[str, Callable[[Server, int], None]]] = {
    "relay": relay,
    "relay_logged": relay_logged,
    "pyfcm": pyfcm,
    "firebase": firebase,
}

if __name__ == "__main__":
    SIDES[sys.argv[1]](Server(Path(sys.argv[2]), int(sys.argv[3])), int(sys.argv[4]))
