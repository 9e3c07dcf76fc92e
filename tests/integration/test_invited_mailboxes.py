"""A mailbox is watched with tickets only for the invited user, whatever others know or guess about it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.negotiate import KerberosCredential, Naming
from eas_watcher.errors import AccessDenied, CredentialVoid
from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.transport.negotiate import NegotiateTransport
from relay.domain.model import RegistrationState
from relay.process.clock import now
from relay.sandbox.eas.simulator import EasSimulator
from relay.security.credentials import StoredCredential
from relay.security.invitations import Invitations, InvitedUsers, invite
from relay.watch.accounts import EasServer
from tests.fakes.tickets import FakeRealm
from tests.integration.watch_role import ANN, PASSWORD, WatchRole, open_watch_role
from tests.waiting import until

KEY = Ed25519PrivateKey.generate()
GUESTS = InvitedUsers("main", Invitations([KEY.public_key()]), Naming("EXAMPLE.COM", frozenset({"example.com"})))
WEEK = timedelta(days=7)


def invited(user: str = ANN, server: str = "main", ends: timedelta = WEEK, **of: Ed25519PrivateKey) -> str:
    return invite(of.get("key", KEY), server, user, now() + ends)


@dataclass
class Directory:
    """A server whose users are invited, and the answers of the KDC."""

    realm: FakeRealm = field(default_factory=FakeRealm)

    def servers(self, transport: Transport, eas: EasSimulator) -> Mapping[str, EasServer]:
        eas.identities.ticket_of = self.realm.user_of

        def delegate(credential: KerberosCredential, shown_at: datetime | None) -> Transport:
            GUESTS.check(credential, shown_at)
            GUESTS.principal(credential.user)
            return NegotiateTransport(transport, self.realm.tickets(credential.user))

        return {"main": EasServer(eas.url, transport, Policy(), delegate=delegate, basic=False)}


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[WatchRole, Directory]]:
    """Run a watch role whose ann is invited and watched."""
    directory = Directory()
    async with open_watch_role(folder, directory.servers) as role:
        phone = await role.register("phone", credential=KerberosCredential(ANN, invited()))
        assert (await role.judged(phone)).registration.state is RegistrationState.ACTIVE
        yield role, directory


async def test_an_invited_user_registers_without_any_secret(tmp_path: Path) -> None:
    async with watched(tmp_path) as (role, directory):
        assert directory.realm.given
        assert not role.eas.records.refusals


@pytest.mark.parametrize(
    "credential",
    [
        KerberosCredential(ANN, ""),
        KerberosCredential(ANN, "guessed"),
        KerberosCredential(ANN, invited(ends=timedelta(seconds=-1))),
        KerberosCredential(ANN, invited("ben@example.com")),
        KerberosCredential(ANN, invited(server="branch")),
        KerberosCredential(ANN, invited(key=Ed25519PrivateKey.generate())),
    ],
)
async def test_nobody_else_registers_for_a_mailbox_that_is_watched(
    tmp_path: Path, credential: StoredCredential
) -> None:
    async with watched(tmp_path) as (role, _):
        await until(lambda: role.eas.held == 1)
        before = role.requests("OPTIONS")
        stranger = await role.register("stranger", credential=credential)

        assert (await role.judged(stranger)).registration.state is RegistrationState.REFUSED
        assert role.requests("OPTIONS") == before


async def test_a_password_is_not_taken_where_users_are_invited(tmp_path: Path) -> None:
    async with open_watch_role(tmp_path, Directory().servers) as role:
        stranger = await role.register("stranger", credential=BasicCredential(ANN, PASSWORD))

        assert (await role.blocked(stranger)).reason == "credential-kind"
        assert role.requests("OPTIONS") == 0


async def test_a_watch_goes_on_when_its_invitation_is_over(tmp_path: Path) -> None:
    directory = Directory()
    transport_made: list[bool] = []

    def servers(transport: Transport, eas: EasSimulator) -> Mapping[str, EasServer]:
        (server,) = directory.servers(transport, eas).values()
        inner = server.delegate
        assert inner is not None

        def delegate(credential: KerberosCredential, shown_at: datetime | None) -> Transport:
            late = None if shown_at is None else shown_at + timedelta(days=8 * bool(transport_made))
            made = inner(credential, late)
            transport_made.append(shown_at is None)
            return made

        return {"main": replace(server, delegate=delegate)}

    async with open_watch_role(tmp_path, servers) as role:
        phone = await role.register("phone", credential=KerberosCredential(ANN, invited()))
        assert (await role.judged(phone)).registration.state is RegistrationState.ACTIVE
        tablet = await role.register("tablet", credential=KerberosCredential(ANN, invited()))

        assert (await role.judged(tablet)).registration.state is RegistrationState.REFUSED
        assert True in transport_made


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        (CredentialVoid("the directory has no such user", Reason.KERBEROS_USER_UNKNOWN), RegistrationState.REFUSED),
        (AccessDenied("the KDC does not let the relay", Reason.KERBEROS_DELEGATION), RegistrationState.VERIFYING),
    ],
)
async def test_the_kdc_has_a_word_too(tmp_path: Path, failure: Exception, state: RegistrationState) -> None:
    directory = Directory()
    assert isinstance(failure, CredentialVoid | AccessDenied)
    directory.realm.failure = failure
    async with open_watch_role(tmp_path, directory.servers) as role:
        phone = await role.register("phone", credential=KerberosCredential(ANN, invited()))
        if state is RegistrationState.REFUSED:
            await role.judged(phone)
        else:
            view = await role.seen(phone, lambda view: view.mailbox.reason == "kerberos-delegation")
            assert "KDC" in view.mailbox.detail

        assert (await role.view(phone)).registration.state is state
        assert role.requests("OPTIONS") == 0


async def test_a_server_that_refuses_tickets_is_its_administrators_fault_and_no_users(tmp_path: Path) -> None:
    directory = Directory()
    async with open_watch_role(tmp_path, directory.servers) as role:
        role.eas.identities.ticket_of = lambda _: None
        phone = await role.register("phone", credential=KerberosCredential(ANN, invited()))
        view = await role.seen(phone, lambda view: view.mailbox.reason == "kerberos-ticket")

        assert view.registration.state is RegistrationState.VERIFYING
        assert view.mailbox.state is WatchState.VERIFYING


async def test_a_new_invitation_changes_nothing_for_the_other_phone(tmp_path: Path) -> None:
    async with watched(tmp_path) as (role, _):
        tablet = await role.register("tablet", credential=KerberosCredential(ANN, invited(ends=2 * WEEK)))

        view = await role.judged(tablet)
        assert view.registration.state is RegistrationState.ACTIVE
        assert view.mailbox.state in {WatchState.STARTING, WatchState.WATCHING}
