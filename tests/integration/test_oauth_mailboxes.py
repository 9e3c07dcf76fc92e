"""A rotated refresh token is never lost: through registration, a second phone, an outage and a restart."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.grant import OAuthClient
from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.ports import Transport
from eas_watcher.transport.http import open_transport
from eas_watcher.transport.tokens import TokenEndpoint
from relay.domain.model import RegistrationState, WatchRecord
from relay.process.clock import now
from relay.sandbox.eas.simulator import EasSimulator
from relay.watch.accounts import EasServer
from tests.fakes.openid import CLIENT_ID, CLIENT_SECRET, OpenIdSimulator, open_openid_simulator
from tests.fakes.tls import Authority
from tests.integration.watch_role import ANN, MAILBOX, WatchRole, open_watch_role
from tests.waiting import until

Servers = Callable[[Transport, EasSimulator], Mapping[str, EasServer]]


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[OpenIdSimulator, Servers]]:
    """Run an OpenID provider; yield it with the servers that accept only its tokens."""
    authority = Authority()
    async with (
        open_openid_simulator(tls=authority.server, now=now) as openid,
        open_transport(authority.client) as transport,
    ):
        endpoint = TokenEndpoint(OAuthClient(openid.token_endpoint, CLIENT_ID, CLIENT_SECRET), transport, now)

        def servers(transport: Transport, eas: EasSimulator) -> Mapping[str, EasServer]:
            eas.identities.passwords, eas.identities.user_of = False, openid.user_of
            return {"main": EasServer(eas.url, transport, Policy(), tokens=endpoint, basic=False)}

        yield openid, servers


async def recorded(role: WatchRole) -> WatchRecord:
    record = await role.store.record(MAILBOX, now())
    assert record is not None
    return record


async def stored(role: WatchRole) -> OAuthCredential:
    record = await recorded(role)
    assert record.sealed_credential is not None
    credential = role.key.open(record.mailbox, record.sealed_credential)
    assert isinstance(credential, OAuthCredential)
    return credential


async def watching(role: WatchRole) -> None:
    async def is_watched() -> bool:
        return (await recorded(role)).mailbox.state is WatchState.WATCHING

    await until(is_watched)


async def test_what_is_stored_is_the_token_that_came_last(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        first = openid.grant(ANN)
        phone = await role.register("phone", credential=OAuthCredential(ANN, first))

        assert (await role.judged(phone)).registration.state is RegistrationState.ACTIVE
        kept = await stored(role)
        assert kept.refresh_token != first
        assert kept.grant == OAuthCredential(ANN, first).grant
        assert not openid.revoked(ANN)


async def test_the_same_grant_sent_again_is_known_and_not_spent_twice(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        credential = OAuthCredential(ANN, openid.grant(ANN))
        await role.judged(await role.register("phone", credential=credential))
        await watching(role)
        asked = openid.refreshes[ANN]
        again = await role.register("again", credential=credential)

        assert (await role.judged(again)).registration.state is RegistrationState.ACTIVE
        assert not openid.revoked(ANN)
        assert openid.refreshes[ANN] == asked


async def test_a_restart_goes_on_with_the_rotated_token(tmp_path: Path) -> None:
    async with provider() as (openid, servers):
        async with open_watch_role(tmp_path, servers) as role:
            await role.judged(await role.register("phone", credential=OAuthCredential(ANN, openid.grant(ANN))))
            await watching(role)
            key, asked = (tmp_path / "sealing.pem").read_bytes(), openid.refreshes[ANN]

        async with open_watch_role(tmp_path, servers, key=key) as role:
            await until(lambda: openid.refreshes[ANN] > asked)
            await watching(role)
            assert not openid.revoked(ANN)
            role.eas.records.complaints.clear()  # this simulator does not know the sync keys that the first one gave


async def test_a_revoked_grant_is_refused_at_registration(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        token = openid.grant(ANN)
        openid.revoke(ANN)
        phone = await role.register("phone", credential=OAuthCredential(ANN, token))

        assert (await role.judged(phone)).registration.state is RegistrationState.REFUSED
        assert role.requests("OPTIONS") == 0


async def test_another_grant_of_a_user_leaves_the_phones_with_the_first_one_alone(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        phone = await role.register("phone", credential=OAuthCredential(ANN, openid.grant(ANN)))
        await role.judged(phone)
        tablet = await role.register("tablet", credential=OAuthCredential(ANN, openid.grant(ANN)))

        assert (await role.judged(tablet)).registration.state is RegistrationState.ACTIVE
        assert (await role.view(phone)).registration.state is RegistrationState.ACTIVE


async def test_a_grant_that_was_withdrawn_is_void_though_its_access_token_still_works(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        phone = await role.register("phone", credential=OAuthCredential(ANN, openid.grant(ANN)))
        await role.judged(phone)
        await watching(role)
        openid.withdraw(ANN)
        tablet = await role.register("tablet", credential=OAuthCredential(ANN, openid.grant(ANN)))

        assert (await role.judged(tablet)).registration.state is RegistrationState.ACTIVE
        assert (await role.view(phone)).registration.state is RegistrationState.VERIFYING
