"""All watches of a process, started and stopped by the mailbox's id."""

import asyncio
import logging
from collections.abc import Callable

from eas_watcher.auth.credential import Credential
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
        self._on_end = self._ended
        """One object for all watches."""
        self._watches: dict[MailboxId, Runner] = {}

    def __len__(self) -> int:
        """Return how many watches run."""
        return len(self._watches)

    def __contains__(self, mailbox: object) -> bool:
        """Return True if a mailbox is watched."""
        return mailbox in self._watches

    def credential(self, mailbox: MailboxId) -> Credential | None:
        """Return the credential that the watch of a mailbox shows; None: it has no watch."""
        runner = self._watches.get(mailbox)
        return None if runner is None else runner.credential

    def url(self, mailbox: MailboxId) -> str | None:
        """Return where the watch of a mailbox asks; None: it has no watch."""
        runner = self._watches.get(mailbox)
        return None if runner is None else runner.url

    def follow(self, mailbox: MailboxId, policy: Policy) -> None:
        """Let the watch of a mailbox, if it has one, go on with another policy."""
        if (runner := self._watches.get(mailbox)) is not None:
            runner.follow(policy)

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
        if account.mailbox in self._watches:
            raise ValueError("a mailbox has one watch, never two")
        runner = Runner(account, transport, self._context, memory, policy, seeker, bare)
        self._watches[account.mailbox] = runner
        runner.start(self._on_end)

    async def stop(self, mailbox: MailboxId) -> None:
        """Stop the watch of a mailbox, if it has one; return when its last request is closed."""
        runner = self._watches.get(mailbox)
        if runner is not None:
            await runner.stop()

    async def stop_all(self) -> None:
        """Stop every watch; return when all requests are closed."""
        watches = list(self._watches.values())
        while closing := {task for runner in watches if (task := runner.cancel()) is not None}:
            await asyncio.wait(closing)

    def _ended(self, mailbox: MailboxId, error: BaseException | None) -> None:
        del self._watches[mailbox]
        if isinstance(error, Fenced):
            log.info("watch belongs to another process now", extra={"mailbox": mailbox})
        elif error is not None:
            log.error("watch broke", extra={"mailbox": mailbox}, exc_info=error)
            self._on_broken(mailbox)
