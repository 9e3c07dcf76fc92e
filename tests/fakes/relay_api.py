"""A whole API over a store in memory, and a mail server that decides about credentials by their password."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.negotiate import KerberosCredential, Naming
from relay.domain.model import Platform, RegistrationId
from relay.domain.ports.wakeups import Topic
from relay.domain.subscription import Subscription
from relay.domain.timeline import Timeline
from relay.domain.users import Accounts
from relay.registration.capabilities import Capabilities, OAuthFacts, ServerFacts
from relay.registration.certificate_process import CertificateProcess
from relay.registration.credentials import CertificateReader, Logins
from relay.registration.enrolment import Enrolment
from relay.registration.identity import ServerDirectory
from relay.registration.receipts import Receipts, ReceiptStats
from relay.registration.registrations import Registrations, Rules
from relay.registration.verdicts import VERDICT_WAIT, VerdictWaiter
from relay.security.credentials import CredentialKind
from relay.security.invitations import Invitations, InvitedUsers
from relay.security.sealing import SealingPrivateKey
from relay.store.wakeups import LocalWakeups
from tests.fakes.registrations import MemoryRegistrationStore

BEGAN = datetime(2026, 11, 23, 8, tzinfo=UTC)
GOOD = "canary-good-päss"
SILENT = "canary-silent"
"""With this password the server never answers; it refuses all others but these two."""
APNS_APP, FCM_APP, WEB_APP = "com.example.mail", "com.example.droid", "com.example.web"
SERVICE = "push.example.com:8443"
APNS_TOKEN = "c0ffee" * 11
FCM_TOKEN = "canary:APA91b-token_of-ann"
KINDS = {"branch": frozenset(CredentialKind)}
REDIRECT = "com.example.mail:/signed-in"
REDIRECTS = {"branch": frozenset({REDIRECT})}
SERVERS = {"head-office": ["example.com"], "branch": ["branch.example.com"]}


def subscribed(endpoint: str) -> str:
    """Return the device token of a subscription, with the keys of the example in RFC 8291."""
    return Subscription.of(
        endpoint,
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "BTBZMqHH6r4Tts7J_aSIgg",
    ).token


@dataclass
class Time:
    """A clock that a test moves."""

    now: datetime = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


class Tokens:
    """A source of texts that are easy to tell apart and fit where random ones fit."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, size: int) -> str:
        self.made.append(f"token{len(self.made)}-{size}")
        return self.made[-1]


class ApiWorld:
    """The use cases with their store, their clock and a simulated watch role."""

    def __init__(
        self,
        *,
        verdict_wait: float = VERDICT_WAIT,
        certificates: CertificateReader | None = None,
        invites: bool = False,
        enrolment: Enrolment | None = None,
        proving: frozenset[Platform] = frozenset(),
        accounts: Mapping[str, Accounts] = MappingProxyType({}),
    ) -> None:
        self.wakeups = LocalWakeups()
        self.store = MemoryRegistrationStore(self.wakeups)
        self.key = SealingPrivateKey(X25519PrivateKey.generate())
        self.time = Time()
        self.tokens = Tokens()
        self.judged: list[str] = []
        self.inviting = Ed25519PrivateKey.generate()
        naming = Naming("EXAMPLE.COM", frozenset(SERVERS["branch"]))
        guests = {"branch": InvitedUsers("branch", Invitations([self.inviting.public_key()]), naming)}
        directory = ServerDirectory(SERVERS)
        apps = {
            Platform.APNS: frozenset({APNS_APP}),
            Platform.FCM: frozenset({FCM_APP}),
            Platform.WEBPUSH: frozenset({WEB_APP}),
        }
        login = "https://login.example.com"
        oauth = OAuthFacts(f"{login}/token", "push-relay", "openid", frozenset({"mail"}), f"{login}/authorize")
        facts = {name: ServerFacts(kinds, oauth) for name, kinds in KINDS.items()}
        self.capabilities = Capabilities(
            directory, "1.2.3", apps, frozenset({SERVICE}), facts, enrolment or Enrolment(), invites=invites
        )
        self.service = Registrations(
            self.store,
            VerdictWaiter(self.store, self.wakeups, seconds=verdict_wait),
            self.key.public_key(),
            Rules(
                directory,
                apps,
                Logins(KINDS, certificates or CertificateProcess(), self.time, guests, REDIRECTS),
                frozenset({SERVICE}),
                invitations=Invitations([self.inviting.public_key()]) if invites else None,
                proving=proving,
                accounts=accounts,
            ),
            self.time,
            self.tokens,
        )
        self.timeline, self.shown = Timeline(self.time), ReceiptStats()
        self.receipts = Receipts(self.service.view, self.time, self.timeline, self.shown)

    def open(self, registration_id: RegistrationId) -> tuple[str, str]:
        """Return user and password of a registration's candidate, or else of its mailbox's credential."""
        mailbox = self.store.mailboxes[self.store.registrations[registration_id].mailbox_id]
        sealed = self.store.candidates.get(registration_id) or self.store.credentials[mailbox.id]
        credential = self.key.open(mailbox, sealed)
        if isinstance(credential, KerberosCredential):
            return credential.user, GOOD
        if isinstance(credential, OAuthCredential) and credential.code is not None:
            return credential.user, credential.code.code
        assert isinstance(credential, BasicCredential)
        return credential.user, credential.password

    def judge(self) -> None:
        """Decide about every candidate that waits, except silent ones; delete mailboxes that are not used any more."""
        for id_ in list(self.store.candidates):
            _, password = self.open(id_)
            if password == SILENT:
                continue
            self.judged.append(password)
            if password == GOOD:
                self.store.accept(id_, self.time())
            else:
                self.store.refuse(id_, self.time())
        self.store.forget_unused()


@asynccontextmanager
async def judging(world: ApiWorld, seconds: float = 0.0) -> AsyncIterator[None]:
    """Run the watch role beside the test: decide about new candidates, each time after some seconds."""

    async def judge() -> None:
        waiter = world.wakeups.waiter(Topic.MAILBOXES)
        while True:
            await waiter.wait(60)
            await asyncio.sleep(seconds)
            world.judge()

    task = asyncio.get_running_loop().create_task(judge(), name="judge")
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
