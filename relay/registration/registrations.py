"""The use cases of registrations, without HTTP: register, view, change, remove, test push.

If the mailbox's server answers soon, the app gets its verdict on the credential at once: the watch role asks the
server, and this role waits until the verdict is in the store.
"""

import hmac
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.auth.negotiate import KerberosCredential
from eas_watcher.names import MailboxId
from relay.domain.clock import Clock
from relay.domain.devices import normalise_token
from relay.domain.errors import MailboxExists, MailboxFull, RegistrationExists, RelayError, StoreUnavailable
from relay.domain.model import (
    Ending,
    Mark,
    NewMailbox,
    Platform,
    PushTest,
    PushTestState,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    RegistrationView,
    shard_of,
)
from relay.domain.ports.registration import RegistrationStore
from relay.domain.timeline import Denial, EventKind, Timeline
from relay.domain.tries import DEFAULT, TryLimits, account_key
from relay.domain.users import Accounts
from relay.registration.credentials import Logins
from relay.registration.errors import (
    CredentialRefused,
    Gone,
    InvalidRequest,
    KeyReused,
    MailboxWiped,
    NoSuchTest,
    NotActive,
    NotAuthorized,
    OtherMailbox,
    Replaced,
    TooManyChallenges,
    TooManyRefusals,
    TooManyTests,
    UnknownApp,
    Wiped,
    WrongProof,
)
from relay.registration.guesses import Guesses
from relay.registration.identity import ServerDirectory, normalise
from relay.registration.requests import (
    KerberosLogin,
    Login,
    OAuthCodeLogin,
    RegistrationRequest,
    check_device,
    refusal,
)
from relay.registration.secret import Access, check_identity, derive, grants, hash_secret, proof
from relay.registration.verdicts import Verdict, VerdictWaiter
from relay.security.credentials import StoredCredential
from relay.security.invitations import Invitations
from relay.security.sealing import SealingPublicKey, derive_device_id

log = logging.getLogger(__name__)

TEST_PAUSE: Final = timedelta(seconds=10)
"""Between two test pushes of a registration: a person looks at the phone in between."""
WIPED: Final = (
    "an administrator wiped the device: remove the data of the account, and do not register again by yourself"
)
FORBIDDEN: Final = "an administrator wiped the mailbox's device: ask the administrator of the relay to allow it again"
SEEN: Final = timedelta(days=1)
"""Between two notes that an app was seen."""
CHALLENGE_PAUSE: Final = timedelta(seconds=30)
"""Between two challenges that an app asks for."""
RENEWAL: Final = "new credential"
"""What the timeline calls a credential that an app sends for a registration."""
RACES: Final = 3  # tries while other requests register the same mailbox


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration with its secret, which the API shows in the answer to a POST."""

    view: RegistrationView
    secret: str = field(repr=False)
    made: bool = True
    """False: it was there already."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """A request whose device can be pushed to, with the mailbox that it means."""

    request: RegistrationRequest
    server: str
    user: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say about registrations."""

    servers: ServerDirectory
    apps: Mapping[Platform, frozenset[str]]
    """Those that the relay may push to."""
    logins: Logins
    services: frozenset[str] = frozenset()
    """The push services of WebPush that the relay may use."""
    limits: Mapping[str, TryLimits] = field(default_factory=dict)
    """What the directory of each server bears of refused logins."""
    invitations: Invitations | None = None
    """Unless None, only users whom the operator invited may register."""
    proving: frozenset[Platform] = frozenset()
    """Platforms whose apps must prove that they are on their device."""
    accounts: Mapping[str, Accounts] = field(default_factory=dict)
    """Which logins of each server mean one user."""


class Registrations:
    """Serves the requests of apps; every method but `register` and `put` needs the registration's id and secret."""

    def __init__(
        self,
        store: RegistrationStore,
        verdicts: VerdictWaiter,
        key: SealingPublicKey,
        rules: Rules,
        clock: Clock,
        tokens: Callable[[int], str],
        timeline: Timeline | None = None,
    ) -> None:
        """Set up with the parts that registrations need; `tokens` returns URL-safe text of that many random bytes.

        What apps do goes into the `timeline`.
        """
        self._timeline = timeline or Timeline.off()
        self.rules = rules
        """What holds for the next request."""
        self._store = store
        self._verdicts = verdicts
        self._key = key
        self._clock = clock
        self._tokens = tokens
        self._guesses = Guesses(clock)

    def seal_with(self, key: SealingPublicKey) -> None:
        """Seal what comes from now on for another key."""
        self._key = key

    async def register(self, request: RegistrationRequest, idempotency_key: str | None = None) -> Registered:
        """Make a registration and wait for the verdict on its credential; with a key, as `put` does.

        The registration is active, or verifying if the server has not answered yet. Raises InvalidRequest,
        UnknownServer, UnsupportedCredential, UnknownApp, UnsupportedDevice, TooManyRefusals, MailboxFull,
        StoreUnavailable, KeyReused, and CredentialRefused: then no registration is left.
        """
        if idempotency_key is None:
            access = Access(RegistrationId(self._tokens(18)), self._tokens(32))
            return await self._make(access, self._checked(request))
        access = derive(idempotency_key, request.login)
        try:
            with self._guesses.one(access.registration_id):
                return await self._put(access, request)
        except NotAuthorized as error:
            raise KeyReused("came with another credential before: make a new key", "Idempotency-Key") from error

    async def put(self, access: Access, request: RegistrationRequest) -> Registered:
        """Make the registration whose id and secret the app made, or make the one that is there what the request says.

        A credential that comes again is not tried again, and a registration that has ended does not come back. Raises
        what `register` and `change` raise, and NotAuthorized if the id is taken and has another secret.
        """
        check_identity(access)
        return await self._put(access, request)

    async def _put(self, access: Access, request: RegistrationRequest) -> Registered:
        checked = self._checked(request)
        id_ = access.registration_id
        if await self._store.view(id_) is None and await self._store.tombstone(id_) is None:
            try:
                return await self._make(access, checked)
            except RegistrationExists:
                log.debug("registration was made meanwhile", extra={"registration": id_})
        return Registered(await self._renew(await self.view(access), access, checked), access.secret, made=False)

    def _checked(self, request: RegistrationRequest) -> _Checked:
        device = replace(request.device, token=normalise_token(request.device.platform, request.device.token))
        if device.app not in self.rules.apps.get(device.platform, frozenset()):
            raise UnknownApp(f"the relay may not push to this app through {device.platform.value}", "device.app")
        check_device(device.platform, device.token, device.environment, self.rules.services)
        address = _user("mailbox", request.mailbox)
        user = address if request.login.user is None else _user("credential.user", request.login.user)
        return _Checked(replace(request, device=device), self.rules.servers.find(request.server, address, user), user)

    async def _make(self, access: Access, checked: _Checked) -> Registered:
        request, server, user = checked.request, checked.server, checked.user
        self._check_invitation(request, server, user)
        credential = await self.rules.logins.credential(server, user, request.login)
        account = self._timeline.account_of(user)
        with self._denying(account):
            await self._check_tries(server, user, owner=False)
            await self._create(request, server, credential, access)
        verdict, view = await self._verdicts.wait(access.registration_id)
        if verdict is Verdict.REFUSED:
            self._denied(account, Denial.CREDENTIAL, view)
            await self._withdraw(access.registration_id)
            raise _refused(request.login, "no registration was made")
        if verdict is Verdict.WIPED:
            self._denied(account, Denial.WIPED, view)
            await self._withdraw(access.registration_id)
            raise MailboxWiped(FORBIDDEN)
        fields = {"registration": access.registration_id, "mailbox": view.mailbox.id, "verdict": verdict.name}
        log.info("registered", extra=fields)
        self._timeline.registered(view, verdict.name.lower(), account)
        return Registered(view, access.secret)

    async def _renew(self, view: RegistrationView, access: Access, checked: _Checked) -> RegistrationView:
        """Make a registration what a request says; raises what `change` raises."""
        own, device = view.registration, checked.request.device
        if checked.server != view.mailbox.server or not self._alike(view, checked.user):
            raise OtherMailbox("this registration is for another mailbox: make a new one, with another id", "mailbox")
        if (device.platform, device.app) != (own.platform, own.app):
            raise OtherMailbox("this registration is for another app: make a new one, with another id", "device.app")
        change, login = _difference(own, checked.request), checked.request.login
        if not _settled(view, proof(access.secret, login)):
            return await self.change(access, change, login)
        if change != RegistrationChange():
            view = await self.change(access, change)
        if not view.candidate_pending:
            return view
        verdict, view = await self._verdicts.wait(own.id)
        if verdict is Verdict.REFUSED:
            raise _refused(login, "the registration is as it was")
        if verdict is Verdict.WIPED:
            raise Wiped(WIPED)
        return view

    def _check_invitation(self, request: RegistrationRequest, server: str, user: str) -> None:
        """Raise InvalidRequest if the user needs an invitation and has none; one of Kerberos has its own check."""
        invitations = self.rules.invitations
        if invitations is None or isinstance(request.login, KerberosLogin):
            return
        if not request.invitation:
            raise InvalidRequest([("invitation", "is missing: ask the administrator of the company for one")])
        try:
            invitations.check(request.invitation, server, user, self._clock())
        except UnusableCredential as error:
            raise InvalidRequest([("invitation", str(error))]) from error

    async def view(self, access: Access) -> RegistrationView:
        """Return a registration; raises NotAuthorized, Wiped, Gone."""
        view = await self._store.view(access.registration_id)
        if not grants(access, None if view is None else view.registration.secret_hash) or view is None:
            # Asked for wrong secrets too, so that a guess at an id takes the same time.
            raise await self._ended(access)
        if view.registration.state is RegistrationState.WIPED:
            raise Wiped(WIPED)
        await self._saw(view)
        return view

    async def _saw(self, view: RegistrationView) -> None:
        """Note that the app was seen, about once a day: a read is no write."""
        now, before = self._clock(), view.seen_at or view.registration.created_at
        if abs(now - before) < SEEN:  # a moment ahead was noted while the clock was wrong
            return
        try:
            await self._store.saw(view.registration.id, now)
        except StoreUnavailable:
            log.debug("app seen, but not noted: the database is away", extra={"registration": view.registration.id})

    async def _ended(self, access: Access) -> RelayError:
        """Return why nothing opens with an id and a secret."""
        tombstone = await self._store.tombstone(access.registration_id)
        if not grants(access, None if tombstone is None else tombstone.secret_hash) or tombstone is None:
            return NotAuthorized("no registration opens with this id and secret")
        return Wiped(WIPED) if tombstone.ending is Ending.WIPED else Gone(tombstone.ending)

    async def change(self, access: Access, change: RegistrationChange, login: Login | None = None) -> RegistrationView:
        """Change a registration; with a `login` change its credential too, and wait for the verdict as `register` does.

        Raises NotAuthorized, Wiped, Gone, InvalidRequest, UnsupportedDevice, OtherMailbox, TooManyRefusals,
        StoreUnavailable, and CredentialRefused: then nothing is changed. Without a verdict in time the rest is changed,
        and the view says that the credential is pending.
        """
        view = await self.view(access)
        platform = view.registration.platform
        if change.device_token is not None:
            token = normalise_token(platform, change.device_token)
            change = replace(change, device_token=token, proves=platform in self.rules.proving)
        check_device(platform, change.device_token, change.environment, self.rules.services)
        if login is not None:
            return await self._change_login(view, change, login, proof(access.secret, login))
        await self._store.change(access.registration_id, change, self._clock())
        self._timeline.changed(view.registration, change)
        return await self.view(access)

    async def _change_login(
        self, view: RegistrationView, change: RegistrationChange, login: Login, shown: bytes
    ) -> RegistrationView:
        id_, mailbox = view.registration.id, view.mailbox
        if login.user is not None and not self._alike(view, _user("credential.user", login.user)):
            raise OtherMailbox(
                "the credential names another user: remove this registration and make a new one", "credential.user"
            )
        credential = await self.rules.logins.credential(mailbox.server, mailbox.user, login)
        sealed = self._key.seal(mailbox, credential)
        owner = view.registration.state is RegistrationState.ACTIVE
        account = self._timeline.account_of(mailbox.user)
        with self._denying(account, view, RENEWAL):
            await self._check_tries(mailbox.server, mailbox.user, owner=owner)
        renewal = RegistrationChange(sealed_candidate=sealed, credential_proof=shown)
        await self._store.change(id_, renewal, self._clock())
        self._timeline.changed(view.registration, renewal)
        verdict, view = await self._verdicts.wait(id_)
        if verdict is Verdict.REFUSED:
            self._denied(account, Denial.CREDENTIAL, view, RENEWAL)
            raise _refused(login, "nothing was changed")
        if verdict is Verdict.WIPED:
            raise Wiped(WIPED)
        if change == RegistrationChange():
            return view
        await self._store.change(id_, change, self._clock())
        self._timeline.changed(view.registration, change)
        changed = await self._store.view(id_)
        if changed is None:
            raise Replaced("it was removed, or the same app on the same device registered again")
        return changed

    async def remove(self, access: Access) -> None:
        """Remove a registration and its waiting pushes, or nothing if it has ended; raises NotAuthorized, Wiped."""
        try:
            await self.view(access)
        except Gone:
            return  # the answer to an earlier request may have been lost
        await self._store.remove(access.registration_id, self._clock())
        log.info("registration removed", extra={"registration": access.registration_id})

    async def test_push(self, access: Access) -> tuple[RegistrationView, PushTest]:
        """Mark a registration for a test push and return it; raises NotAuthorized, NotActive, TooManyTests."""
        view = await self.view(access)
        if view.registration.state is not RegistrationState.ACTIVE:
            raise NotActive(f"the registration is {view.registration.state.value}, not active")
        now = self._clock()
        if not await self._store.may_test(access.registration_id, now, TEST_PAUSE):
            raise TooManyTests(TEST_PAUSE.total_seconds())
        test = PushTest(self._tokens(12), PushTestState.QUEUED, now)
        await self._store.mark(access.registration_id, Mark.TEST, now, test.id)
        self._asked(view, Mark.TEST)
        return view, test

    async def challenge(self, access: Access) -> RegistrationView:
        """Have another challenge sent; raises NotAuthorized, NotActive, TooManyChallenges.

        A registration that has nothing to prove stays as it is.
        """
        view = await self.view(access)
        if view.registration.state is RegistrationState.ACTIVE:
            return view
        if view.registration.state is not RegistrationState.PROVING:
            raise NotActive(f"the registration is {view.registration.state.value}: it has no challenge")
        now = self._clock()
        if view.registration.platform not in self.rules.proving:  # the administrator switched it off meanwhile
            same = RegistrationChange(device_token=view.registration.device_token)
            await self._store.change(access.registration_id, same, now)
            return await self.view(access)
        if not await self._store.may_test(access.registration_id, now, CHALLENGE_PAUSE):
            raise TooManyChallenges(CHALLENGE_PAUSE.total_seconds())
        await self._store.mark(access.registration_id, Mark.CHALLENGE, now)
        self._asked(view, Mark.CHALLENGE)
        return view

    async def prove(self, access: Access, nonce: str) -> RegistrationView:
        """Make a registration active whose app returns the nonce of its challenge; raises WrongProof and others.

        Raises NotAuthorized, and NotActive in states without a challenge. One that is active already stays so: the
        answer to the first proof may have been lost.
        """
        view = await self.view(access)
        if view.registration.state is RegistrationState.ACTIVE:
            return view
        if view.registration.state is not RegistrationState.PROVING:
            raise NotActive(f"the registration is {view.registration.state.value}: it has no challenge")
        if not await self._store.prove(access.registration_id, nonce, self._clock()):
            raise WrongProof("the nonce is not that of the last challenge, or is older than an hour")
        log.info("device proved", extra={"registration": access.registration_id})
        self._timeline.of_registration(EventKind.PROVED, view.mailbox.id, access.registration_id)
        return await self.view(access)

    async def push_test(self, access: Access, test: str) -> PushTest:
        """Return what became of a test push; raises NotAuthorized, NoSuchTest."""
        await self.view(access)
        found = await self._store.push_test(access.registration_id, test)
        if found is None:
            raise NoSuchTest("the registration has no test push of this id; the last five are kept")
        return found

    async def _check_tries(self, server: str, user: str, *, owner: bool) -> None:
        """Raise TooManyRefusals if the watch role could not show a credential now; that counts what it shows.

        It asks for every user alike, whether the relay knows a mailbox of that name or not.
        """
        limits = self.rules.limits.get(server, DEFAULT)
        load = await self._store.load_of(limits.place(server), account_key(user))
        wait = load.wait(limits, self._clock(), owner=owner)
        if wait is not None:
            raise TooManyRefusals(wait)

    async def _create(
        self, request: RegistrationRequest, server: str, credential: StoredCredential, access: Access
    ) -> None:
        """Store a new registration on its mailbox, which another request may make at the same moment."""
        for race in range(RACES):
            mailbox = await self._mailbox(server, credential)
            # In the spelling that the relay knows: if that is another user, the mail server refuses the password.
            sealed = self._key.seal(mailbox, replace(credential, user=mailbox.user))
            registration = self._registration(request, mailbox.id, access)
            try:
                await self._store.create(mailbox, registration, sealed)
            except MailboxExists:
                log.debug("mailbox was made meanwhile", extra={"mailbox": mailbox.id, "race": race})
            else:
                return
        raise StoreUnavailable("the mailbox is made and forgotten at the same time, again and again")

    @contextmanager
    def _denying(self, account: str, view: RegistrationView | None = None, what: str = "") -> Iterator[None]:
        """Note a try that the relay refuses before it shows the credential to anybody."""
        try:
            yield
        except TooManyRefusals:
            self._denied(account, Denial.TOO_MANY, view, what)
            raise
        except MailboxFull:
            self._denied(account, Denial.FULL, view, what)
            raise

    def _denied(self, account: str, why: Denial, view: RegistrationView | None = None, what: str = "") -> None:
        """Note for the help desk that a try was refused: `relay explain USER` finds it by the hash of the user."""
        fields = {"account": account, "reason": why.value, "mailbox": None if view is None else view.mailbox.id}
        log.info("credential of an app not taken", extra=fields)
        self._timeline.denied(account, why, view, what)

    def _asked(self, view: RegistrationView, mark: Mark) -> None:
        """Note that an app asked for a push."""
        self._timeline.of_registration(EventKind.ASKED, view.mailbox.id, view.registration.id, mark.value)

    async def _withdraw(self, id_: RegistrationId) -> None:
        try:
            await self._store.withdraw(id_)
        except StoreUnavailable:
            # The app still gets the refusal, and a refused registration gets no pushes.
            log.warning("refused registration not removed: the database is away", extra={"registration": id_})

    def _alike(self, view: RegistrationView, user: str) -> bool:
        """Return True if a login means the user of a registration's mailbox."""
        return self.rules.accounts.get(view.mailbox.server, Accounts()).alike(view.mailbox.user, user)

    async def _mailbox(self, server: str, credential: StoredCredential) -> NewMailbox:
        """Return the mailbox of a user in any spelling, which may be a new one; an invitation is for one spelling."""
        user, accounts = credential.user, self.rules.accounts.get(server, Accounts())
        if isinstance(credential, KerberosCredential):
            accounts = Accounts(cased=True)
        known = await self._store.mailbox_of(server, user, accounts.keys(user))
        if known is not None:
            return NewMailbox(known.id, known.server, known.user, known.device_id, known.shard)
        id_ = MailboxId(self._tokens(12))
        device_id = derive_device_id(self._key, server, user)
        return NewMailbox(id_, server, user, device_id, shard_of(id_), accounts.key(user))

    def _registration(self, request: RegistrationRequest, mailbox: MailboxId, access: Access) -> Registration:
        now = self._clock()
        return Registration(
            id=access.registration_id,
            mailbox_id=mailbox,
            secret_hash=hash_secret(access.secret),
            app=request.device.app,
            platform=request.device.platform,
            environment=request.device.environment,
            device_token=request.device.token,
            token_since=now,
            classes=request.classes,
            subfolders=request.subfolders,
            mode=request.mode,
            locale=request.locale,
            state=RegistrationState.VERIFYING,
            created_at=now,
            credential_proof=proof(access.secret, request.login),
            must_prove=request.device.platform in self.rules.proving,
        )


def _difference(own: Registration, request: RegistrationRequest) -> RegistrationChange:
    """Return what a request changes of a registration; the same device token revives one that was `token-gone`."""
    device = request.device
    same = device.token == own.device_token and own.state is not RegistrationState.TOKEN_GONE
    return RegistrationChange(
        device_token=None if same else device.token,
        environment=None if device.environment is own.environment else device.environment,
        classes=None if request.classes == own.classes else request.classes,
        subfolders=None if request.subfolders == own.subfolders else request.subfolders,
        mode=None if request.mode is own.mode else request.mode,
        locale=None if request.locale == own.locale else request.locale,
    )


def _settled(view: RegistrationView, shown: bytes) -> bool:
    """Return True if a credential is the last one of a registration, and was accepted or still waits for its verdict.

    One that was refused is tried again, as often as its account bears: the user may have got access meanwhile.
    """
    if not hmac.compare_digest(view.registration.credential_proof, shown):
        return False
    states = {RegistrationState.PROVING, RegistrationState.ACTIVE, RegistrationState.TOKEN_GONE}
    accepted = view.registration.state in states
    return view.candidate_pending or (accepted and not view.candidate_refused)


def _refused(login: Login, left: str) -> CredentialRefused:
    """Return the error for a refused login; `left` says what became of the request."""
    wrong, field_name = refusal(login)
    again = ": let the user sign in again" if isinstance(login, OAuthCodeLogin) else ""
    return CredentialRefused(f"{wrong}; {left}{again}", field_name)


def _user(field_name: str, user: str) -> str:
    try:
        return normalise(user)
    except ValueError as error:
        raise InvalidRequest([(field_name, str(error))]) from error
