"""The simulated EAS server without its HTTP: mailboxes and devices, and the methods that tests and the control call."""

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from random import Random
from typing import Final, TypeVar

from eas_watcher.names import CollectionClass, CollectionId, ServerId, SyncKey
from eas_watcher.ports import Now
from relay.sandbox.eas.connections import Connections
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
from relay.sandbox.eas.workers import Workers

R = TypeVar("R")
SENDER: Final = "ben@example.com"


class UnknownMailbox(LookupError):
    """A mailbox, a folder or an item does not exist; the argument is its name or id."""


class EasSimulator:
    """The state of the simulated server; call all methods in the event loop that serves it."""

    def __init__(self, rules: EasRules, random: Random, now: Now) -> None:
        """`random` is the source of keys, `now` dates delivered items."""
        self.rules = rules
        self.records = EasRecords()
        self.failures = FailureScript()
        self.identities = Identities()
        self.workers = Workers(rules.workers)
        self.pings = HeldPings(self.records, self.workers)
        self.connections: Connections
        """Set when the server listens."""
        self.url = ""
        """The URL of the server; set when it listens."""
        self.port = 0
        self.backend_down = False
        """Whether the backend (mail store or directory) is down."""
        self._mint = KeyMint(random)
        self._now = now
        self._mailboxes: dict[str, SimulatedMailbox] = {}
        self._devices: defaultdict[str, dict[str, SimulatedDevice]] = defaultdict(dict)

    # Records.

    @property
    def held(self) -> int:
        """The number of Pings held now."""
        return len(self.pings)

    @property
    def complaints(self) -> tuple[Complaint, ...]:
        """The faults of clients; empty if all clients kept to the protocol."""
        return tuple(self.records.complaints)

    @property
    def users(self) -> tuple[str, ...]:
        """The users with a mailbox."""
        return tuple(self._mailboxes)

    def overlaps(self, user: str) -> int:
        """Return the number of Pings that arrived while the server held another Ping of the same device."""
        return self.records.overlaps[user]

    def log(self, user: str) -> tuple[LoggedRequest, ...]:
        """Return the last requests of a user, refused ones included, oldest first."""
        return self.records.log(user)

    @property
    def ping_answered_at(self) -> dict[str, int]:
        """User -> when the last status 2 was sent, in nanoseconds of `time.perf_counter_ns`."""
        return self.records.ping_answered_at

    # Changes in mailboxes.

    def add_mailbox(self, user: str, password: str) -> None:
        """Add a mailbox, or change the password of an existing one."""
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
        """Add an item to the default folder of its class, or to `folder`; without `received`, it arrives now.

        Raises UnknownMailbox.
        """
        when = received or self._now()

        def add(mailbox: SimulatedMailbox) -> ServerId:
            into = folder or mailbox.default_folder(cls)
            return mailbox.add_item(into, subject=subject, sender=sender, body=body, received=when, read=read)

        return self._change(user, add)

    def mark_read(self, user: str, server_id: ServerId, *, read: bool = True) -> None:
        """Set the read flag of an item, as another client of the mailbox does; raises UnknownMailbox."""
        self._change(user, lambda mailbox: mailbox.mark_read(server_id, read=read))

    def delete(self, user: str, server_id: ServerId) -> None:
        """Remove an item; raises UnknownMailbox."""
        self._change(user, lambda mailbox: mailbox.delete(server_id))

    def move(self, user: str, server_id: ServerId, folder: CollectionId) -> ServerId:
        """Move an item to another folder of its class and return its new id; raises UnknownMailbox."""
        return self._change(user, lambda mailbox: mailbox.move_item(server_id, folder))

    def add_folder(
        self, user: str, name: str, folder_type: int = USER_MAIL, parent: CollectionId = ROOT
    ) -> CollectionId:
        """Add a folder at the root or below another folder, and return its id; raises UnknownMailbox."""
        return self._change(user, lambda mailbox: mailbox.add_folder(name, folder_type, parent))

    def move_folder(self, user: str, collection: CollectionId, parent: CollectionId = ROOT) -> None:
        """Move a folder below another folder or to the root; raises UnknownMailbox."""
        self._change(user, lambda mailbox: mailbox.move_folder(collection, parent))

    def renumber_folder(self, user: str, collection: CollectionId) -> CollectionId:
        """Give a folder a new id, as if it were restored from a backup, and return it; raises UnknownMailbox."""
        return self._change(user, lambda mailbox: mailbox.renumber_folder(collection))

    def remove_folder(self, user: str, collection: CollectionId) -> None:
        """Remove a folder with its items and all folders below it; raises UnknownMailbox."""
        self._change(user, lambda mailbox: mailbox.remove_folder(collection))

    def break_folder(self, user: str, collection: CollectionId, *, broken: bool = True) -> None:
        """Answer status 8 to every Sync of a folder, although FolderSync lists it, or end that."""
        mailbox = self.mailbox(user)
        (mailbox.broken.add if broken else mailbox.broken.discard)(collection)

    # Actions of an administrator, and faults.

    def lose_state(self, user: str) -> None:
        """Forget all sync keys of a user's devices: Sync answers 3, FolderSync 9; held Pings stay until a change."""
        for device in self.devices(user):
            device.lose_state(self._mint)

    def refresh_policy(self, user: str) -> None:
        """Demand a new acknowledgement of the policy from a user's devices: status 143, or HTTP 449."""
        for device in self.devices(user):
            device.refresh_due = True
        self.pings.wake(user)

    def forget_policy(self, user: str) -> None:
        """Invalidate the policy keys of a user's devices: status 142, or HTTP 449."""
        for device in self.devices(user):
            device.policy_key, device.refresh_due = None, True
        self.pings.wake(user)

    def wipe(self, user: str, *, account_only: bool = False) -> None:
        """Demand a wipe from a user's devices: status 140 until they acknowledge it, then 129."""
        for device in self.devices(user):
            device.wipe = WIPES[account_only]
        self.pings.wake(user)

    def block(self, user: str, *, blocked: bool = True) -> None:
        """Refuse a user's devices with status 129, or end that."""
        for device in self.devices(user):
            device.blocked = blocked
        self.pings.wake(user)

    def quarantine(self, user: str, *, quarantined: bool = True) -> None:
        """Hide all items from a user's devices, with healthy answers, or end that."""
        for device in self.devices(user):
            device.quarantined = quarantined
        self.pings.wake(user)

    def break_backend(self, *, broken: bool = True) -> None:
        """Take the backend of all mailboxes down, or up again; the `outage` of the personality says what clients see.

        Held Pings stay, and report changes when the backend is up again.
        """
        self.backend_down = broken
        for mailbox in self._mailboxes.values():
            mailbox.store_down = self._store_down
        for user in self._mailboxes:
            self.pings.wake(user)

    def resize(self, workers: int | None) -> None:
        """Change how many requests are served at once; None: any number. Held Pings stay, whatever their number."""
        self.workers.resize(workers)

    def restart(self) -> None:
        """End all held Pings, as a restart of the server does."""
        self.pings.restart()
        if not self.rules.personality.restart_ends_pings:
            self.connections.http2.drop()

    def fail(self, user: str | None, plan: FailurePlan) -> None:
        """Let the next requests of a user fail, or of all users for None."""
        self.failures.add(user, plan)

    # For the HTTP side.

    def admit(self, user: str, password: str) -> bool:
        """Return whether a password is right; count a wrong one."""
        mailbox = self._mailboxes.get(user)
        if mailbox is None and self.rules.any_password is not None and password == self.rules.any_password:
            self.add_mailbox(user, password)
            return True
        if mailbox is not None and mailbox.password == password:
            return True
        self.records.refusals[user] += 1
        return False

    def policy_first(self, user: str, device_id: str, command: str) -> bool:
        """Return whether a server with `policy_before_password` demands a policy or a wipe for this request."""
        device = self._devices.get(user, {}).get(device_id)
        if device is None:
            return False
        if command == "Provision":
            return device.wipe is not None
        return command not in {"OPTIONS", "Ping"} and (device.refresh_due or device.wipe is not None)

    def session(self, user: str, request: EasRequest) -> Session:
        """Return the session of a command; a new device is added."""
        devices = self._devices[user]
        device = devices.get(request.device_id)
        if device is None:
            device = devices[request.device_id] = SimulatedDevice()
        complain = partial(self.complain, user, request.command)
        return Session(
            self._mailboxes[user],
            device,
            request.version,
            request.policy_key,
            self.rules,
            self._mint,
            self._now,
            complain,
        )

    def complain(self, user: str, command: str, text: str) -> None:
        """Record a fault of a client."""
        self.records.complaints.append(Complaint(user, command, text))

    def devices(self, user: str) -> tuple[SimulatedDevice, ...]:
        """Return the devices of a user; raises UnknownMailbox."""
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
        """Return a sync key that no device has."""
        return self._mint.sync_key()

    def _change(self, user: str, change: Callable[[SimulatedMailbox], R]) -> R:
        """Change a mailbox and check its held Pings again; raises UnknownMailbox."""
        try:
            result = change(self.mailbox(user))
        except KeyError as error:
            raise UnknownMailbox(str(error.args[0])) from None
        self.pings.wake(user)
        return result
