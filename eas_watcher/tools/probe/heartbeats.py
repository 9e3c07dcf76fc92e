"""What Pings show about a server: which heartbeat intervals it takes, and whether it holds a Ping at all.

A server names its limits when it is asked for an interval beyond them; some hold such a Ping for their maximum first
[observed: SOGo 5.8, 2026-11]. So the long Ping comes first and is given up after a while: the short one that follows,
of the same device, frees the worker that still holds it.
"""

import asyncio
from typing import Final

from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.heartbeat import LONGEST, MINIMUM, START
from eas_watcher.names import CollectionClass, CollectionId
from eas_watcher.tools.probe.device import ProbeDevice
from eas_watcher.tools.probe.finding import Finding, Grade

TOO_LONG: Final = LONGEST + 1  # seconds
TOO_SHORT: Final = 1
GLANCE: Final = 3.0  # seconds that a Ping within the limits must be held for
SHORT: Final = 120  # seconds; a server that holds no longer is asked too often


async def find_limits(device: ProbeDevice, inbox: CollectionId, patience: float) -> Finding:
    """Send Pings for an Inbox that is in step, each for at most `patience` seconds; raises EasError."""
    long = await _ping(device, inbox, TOO_LONG, patience)
    short = await _ping(device, inbox, TOO_SHORT, patience)
    least, most = _limit(short), _limit(long)
    interval = min(max(MINIMUM, least or 0), most or START)
    held = await _ping(device, inbox, interval, min(GLANCE, patience))
    known = f"heartbeat interval {_say(least, 'no lower limit told')} to {_say(most, 'no upper limit told')}"
    if held is not None and held.status not in {PingStatus.CHANGED, PingStatus.EXPIRED}:
        text = f"{known}; a Ping of {interval} s was answered at once with status {held.status.value}"
        return Finding("Ping", Grade.BAD, text, device.times())
    if most is not None and most < SHORT:
        text = f"{known}: the server would be asked every {most} s for each mailbox; raise its maximum"
        return Finding("Ping", Grade.NOTE, text, device.times())
    if held is not None:
        return Finding("Ping", Grade.NOTE, f"{known}; a Ping of {interval} s ended early", device.times())
    return Finding("Ping", Grade.GOOD, f"{known}; a Ping of {interval} s is held", device.times())


async def _ping(device: ProbeDevice, inbox: CollectionId, heartbeat: int, patience: float) -> PingReply | None:
    """Return the answer; None when the Ping is held for longer than `patience`."""
    try:
        async with asyncio.timeout(patience):
            return await device.ask(Ping(heartbeat, ((inbox, CollectionClass.EMAIL),)))
    except TimeoutError:
        return None


def _limit(reply: PingReply | None) -> int | None:
    return reply.heartbeat if reply is not None and reply.status is PingStatus.HEARTBEAT_OUT_OF_RANGE else None


def _say(limit: int | None, unknown: str) -> str:
    return unknown if limit is None else f"{limit} s"
