"""All watches of a process: one task per mailbox, started and stopped by the mailbox's id."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from eas_watcher.machine.memory import Memory
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from eas_watcher.ports import Fenced, Transport
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.relocation import Seeker
from eas_watcher.runtime.runner import Runner

log = logging.getLogger(__name__)


class Fleet:
    """Runs at most one watch per mailbox.

    A watch that ends by a fault of the relay ends alone: the fault is logged, and `on_broken` is called, so that the
    watch can be started again from what is stored.
    """

    def __init__(self, context: WatchContext, on_broken: Callable[[MailboxId], None]) -> None:
        """Take what all runners share, and what to call with the mailbox of a broken watch."""
        self._context = context
        self._on_broken = on_broken
        self._tasks: dict[MailboxId, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Return how many watches run."""
        return len(self._tasks)

    def __contains__(self, mailbox: object) -> bool:
        """Return True if a mailbox is watched."""
        return mailbox in self._tasks

    def start(
        self,
        account: Account,
        transport: Transport,
        memory: Memory,
        policy: Policy,
        seeker: Seeker | None = None,
        bare: Transport | None = None,
    ) -> None:
        """Start a watch; the mailbox must have none.

        `seeker` looks for the mailbox if it may have moved; `bare` is a transport that shows no credential.
        """
        if account.mailbox in self._tasks:
            raise ValueError("a mailbox has one watch, never two")
        runner = Runner(account, transport, self._context, memory, policy, seeker, bare)
        task = asyncio.get_running_loop().create_task(runner.run(), name=f"watch {account.mailbox}")
        self._tasks[account.mailbox] = task
        task.add_done_callback(partial(self._ended, account.mailbox))

    async def stop(self, mailbox: MailboxId) -> None:
        """Stop the watch of a mailbox, if it has one; return when its last request is closed."""
        task = self._tasks.get(mailbox)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def stop_all(self) -> None:
        """Stop every watch; return when all requests are closed."""
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, mailbox: MailboxId, task: asyncio.Task[None]) -> None:
        del self._tasks[mailbox]
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Fenced):
            log.info("watch belongs to another process now", extra={"mailbox": mailbox})
        elif error is not None:
            log.error("watch broke", extra={"mailbox": mailbox}, exc_info=error)
            self._on_broken(mailbox)
