"""Calls that may block for as long as another system likes, each in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

T = TypeVar("T")


async def in_own_thread(work: Callable[[], T], name: str) -> T:
    """Return what `work` returns, or raise what it raises; `name` is that of the thread.

    The caller bounds the number of threads. A call that hangs delays no other call, and it does not delay the end of
    the process: the thread is a daemon. Raises OSError if this host starts no further thread.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", result))

    def run() -> None:
        result: T | None = None
        failed: Exception | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 -- raised again where it is awaited
            failed = error
        with suppress(RuntimeError):  # the loop has ended, and no caller waits any more
            loop.call_soon_threadsafe(settle, result, failed)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise OSError(
            "this host starts no further thread: raise TasksMax= of the service or the limit of pids"
        ) from error
    return await done
