"""Own the simulated EAS server without its HTTP: the mailboxes, and the controls of whoever runs it."""

from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Final, TypeVar

from eas_watcher.names import CollectionClass, CollectionId, ServerId, SyncKey
from eas_watcher.ports import Now
from relay.sandbox.eas.devices import KeyMint, SimulatedDevice
from relay.sandbox.eas.failures import FailurePlan, FailureScript
from relay.sandbox.eas.holds import HeldPings
from relay.sandbox.eas.identities import Identities
from relay.sandbox.eas.mailboxes import ROOT, USER_MAIL, SimulatedMailbox
from relay.sandbox.eas.personality import Outage
from relay.sandbox.eas.provision import WIPES
from relay.sandbox.eas.records import Complaint, EasRecords, LoggedRequest
from relay.sandbox.eas.requests import EasRequest
from relay.sandbox.eas.rules import EasRules, Session

R = TypeVar("R")
SENDER: Final = "ben@example.com"


class UnknownMailbox(LookupError):
    """Tell that nobody of that name has a mailbox here, or no item or folder of that id."""


class EasSimulator:
    """Hold the simulated server and control it; every method is for the event loop that serves it."""

    def __init__(self, rules: EasRules, random: Random, now: Now) -> None:
        """Take how the server behaves, the source of its keys, and the clock that dates what is delivered."""
        self.rules = rules
        self.records = EasRecords()
        self.failures = FailureScript()
        self.identities = Identities()
        self.pings = HeldPings(self.records, now)
        self.url = ""
        """Where clients find the server; set once it listens."""
        self.port = 0
        self.backend_down = False
        """Whether mail store or directory cannot be reached."""
        self._mint = KeyMint(random)
        self._now = now
        self._mailboxes: dict[str, SimulatedMailbox] = {}
        self._devices: dict[str, dict[str, SimulatedDevice]] = {}

    # What a test looks at.

    @property
    def held(self) -> int:
        """Count the Pings held now."""
        return len(self.pings)

    @property
    def complaints(self) -> tuple[Complaint, ...]:
        """The faults of clients so far; empty when everybody kept to the protocol."""
        return tuple(self.records.complaints)

    @property
    def users(self) -> tuple[str, ...]:
        """Whoever has a mailbox."""
        return tuple(self._mailboxes)

    def overlaps(self, user: str) -> int:
        """Count the Pings that came while another one of the same device was held."""
        return self.records.overlaps[user]

    def log(self, user: str) -> tuple[LoggedRequest, ...]:
        """Return the last requests that named a user, oldest first; refused ones too."""
        return self.records.log(user)

    @property
    def ping_answered_at(self) -> dict[str, int]:
        """By user, when the last status 2 left, in nanoseconds of `time.perf_counter_ns`."""
        return self.records.ping_answered_at

    # What happens in mailboxes.

    def add_mailbox(self, user: str, password: str) -> None:
        """Add a mailbox, or change the password of the one there is."""
        mailbox = self._mailboxes.get(user)
        if mailbox is None:
            mailbox = SimulatedMailbox(user, password, self.rules.personality.folder_id)
            mailbox.store_down = self._store_down
            self._mailboxes[user] = mailbox
        else:
            mailbox.password = password

    def deliver(
        self,
        user: str,
        cls: CollectionClass = CollectionClass.EMAIL,
        *,
        subject: str = "Minutes",
        sender: str = SENDER,
        body: str = "See you on Monday.",
        read: bool = False,
        folder: CollectionId | None = None,
        received: datetime | None = None,
    ) -> ServerId:
        """Put an item into the default folder of its class, or another, `received` now unless it says when.

        Raises UnknownMailbox.
        """
        when = received or self._now()

        def add(mailbox: SimulatedMailbox) -> ServerId:
            into = folder or mailbox.default_folder(cls)
            return mailbox.add_item(into, subject=subject, sender=sender, body=body, received=when, read=read)

        return self._change(user, add)

    def mark_read(self, user: str, server_id: ServerId, *, read: bool = True) -> None:
        """Set an item's read flag, as another client of the mailbox would; raises UnknownMailbox."""
        self._change(user, lambda mailbox: mailbox.mark_read(server_id, read=read))

    def delete(self, user: str, server_id: ServerId) -> None:
        """Remove an item; raises UnknownMailbox."""
        self._change(user, lambda mailbox: mailbox.delete(server_id))

    def move(self, user: str, server_id: ServerId, folder: CollectionId) -> ServerId:
        """Move an item to another folder of its class, as its user would; return its new id; raises UnknownMailbox."""
        return self._change(user, lambda mailbox: mailbox.move_item(server_id, folder))

    def add_folder(
        self, user: str, name: str, folder_type: int = USER_MAIL, parent: CollectionId = ROOT
    ) -> CollectionId:
        """Add a folder at the root, or below another one; raises UnknownMailbox."""
        return self._change(user, lambda mailbox: mailbox.add_folder(name, folder_type, parent))

    def move_folder(self, user: str, collection: CollectionId, parent: CollectionId = ROOT) -> None:
        """Put a folder below another one, or at the root; raises UnknownMailbox."""
        self._change(user, lambda mailbox: mailbox.move_folder(collection, parent))

    def renumber_folder(self, user: str, collection: CollectionId) -> CollectionId:
        """Give a folder another id, as a restored one gets it; raises UnknownMailbox."""
        return self._change(user, lambda mailbox: mailbox.renumber_folder(collection))

    def remove_folder(self, user: str, collection: CollectionId) -> None:
        """Remove a folder with its items, and those below it; raises UnknownMailbox."""
        self._change(user, lambda mailbox: mailbox.remove_folder(collection))

    def break_folder(self, user: str, collection: CollectionId, *, broken: bool = True) -> None:
        """Let a folder be listed but answer every Sync with status 8, or take that back."""
        mailbox = self.mailbox(user)
        (mailbox.broken.add if broken else mailbox.broken.discard)(collection)

    # What an administrator or a fault does to devices.

    def lose_state(self, user: str) -> None:
        """Forget all sync keys of a user's devices: Sync says 3, FolderSync says 9; held Pings stay deaf till news."""
        for device in self.devices(user):
            device.lose_state(self._mint)

    def refresh_policy(self, user: str) -> None:
        """Ask a user's devices for a new acknowledgement: status 143, or HTTP 449."""
        for device in self.devices(user):
            device.refresh_due = True
        self.pings.wake(user)

    def forget_policy(self, user: str) -> None:
        """Void the policy keys of a user's devices: status 142, or HTTP 449."""
        for device in self.devices(user):
            device.policy_key, device.refresh_due = None, True
        self.pings.wake(user)

    def wipe(self, user: str, *, account_only: bool = False) -> None:
        """Ask a user's devices to wipe themselves: status 140 until they acknowledge it, then 129."""
        for device in self.devices(user):
            device.wipe = WIPES[account_only]
        self.pings.wake(user)

    def block(self, user: str, *, blocked: bool = True) -> None:
        """Refuse a user's devices with status 129, or take that back."""
        for device in self.devices(user):
            device.blocked = blocked
        self.pings.wake(user)

    def quarantine(self, user: str, *, quarantined: bool = True) -> None:
        """Show a user's devices no items while everything looks healthy, or let them see again."""
        for device in self.devices(user):
            device.quarantined = quarantined
        self.pings.wake(user)

    def break_backend(self, *, broken: bool = True) -> None:
        """Take the backend of all mailboxes away, or give it back: clients see what the personality says.

        Pings that are held go on; with the backend back they tell what came.
        """
        self.backend_down = broken
        for mailbox in self._mailboxes.values():
            mailbox.store_down = self._store_down
        for user in self._mailboxes:
            self.pings.wake(user)

    def restart(self) -> None:
        """End all held Pings as a restart does."""
        self.pings.restart()

    def fail(self, user: str | None, plan: FailurePlan) -> None:
        """Let coming requests fail: those of a user, or everybody's."""
        self.failures.add(user, plan)

    # What the HTTP side needs.

    def admit(self, user: str, password: str) -> bool:
        """Tell whether a password is right; a wrong one is counted."""
        mailbox = self._mailboxes.get(user)
        if mailbox is None and self.rules.any_password is not None and password == self.rules.any_password:
            self.add_mailbox(user, password)
            return True
        if mailbox is not None and mailbox.password == password:
            return True
        self.records.refusals[user] += 1
        return False

    @property
    def is_crowded(self) -> bool:
        """Whether Pings take all the workers there are, those of clients that hung up among them."""
        return self.rules.workers is not None and self.pings.busy >= self.rules.workers

    def policy_first(self, user: str, device_id: str, command: str) -> bool:
        """Tell whether a request is told of a policy, or asked for a wipe, although its password is wrong."""
        device = self._devices.get(user, {}).get(device_id)
        if device is None or not self.rules.personality.policy_before_password:
            return False
        if command == "Provision":
            return device.wipe is not None
        return command not in {"OPTIONS", "Ping"} and (device.refresh_due or device.wipe is not None)

    def session(self, user: str, request: EasRequest) -> Session:
        """Return what a command is answered from; a device that is new is entered."""
        return Session(
            mailbox=self._mailboxes[user],
            device=self._devices.setdefault(user, {}).setdefault(request.device_id, SimulatedDevice()),
            version=request.version,
            policy_key=request.policy_key,
            rules=self.rules,
            mint=self._mint,
            now=self._now(),
            complain=lambda text: self.complain(user, request.command, text),
        )

    def complain(self, user: str, command: str, text: str) -> None:
        """Keep a fault of a client."""
        self.records.complaints.append(Complaint(user, command, text))

    def devices(self, user: str) -> tuple[SimulatedDevice, ...]:
        """Return the devices that a user has used so far; raises UnknownMailbox."""
        if user not in self._mailboxes:
            raise UnknownMailbox(user)
        return tuple(self._devices.get(user, {}).values())

    def mailbox(self, user: str) -> SimulatedMailbox:
        """Return a mailbox; raises UnknownMailbox."""
        try:
            return self._mailboxes[user]
        except KeyError:
            raise UnknownMailbox(user) from None

    @property
    def _store_down(self) -> bool:
        return self.backend_down and self.rules.personality.outage is Outage.VANISHED

    def mint_key(self) -> SyncKey:
        """Make a sync key that nothing stands behind."""
        return self._mint.sync_key()

    def _change(self, user: str, change: Callable[[SimulatedMailbox], R]) -> R:
        """Change a mailbox and wake its Pings."""
        try:
            result = change(self.mailbox(user))
        except KeyError as error:
            raise UnknownMailbox(str(error.args[0])) from None
        self.pings.wake(user)
        return result
