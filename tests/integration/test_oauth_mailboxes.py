"""A rotated refresh token is never lost: through registration, a second phone, an outage and a restart."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eas_watcher.auth.bearer import AuthorizationCode, OAuthCredential
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

VERIFIER = "canary-verifier-" * 3
BEN = "ben@example.com"
REDIRECT = "https://relay.example.com/app/signed-in"

Servers = Callable[[Transport, EasSimulator], Mapping[str, EasServer]]


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[OpenIdSimulator, Servers]]:
    """Run an OpenID provider; yield it with the servers that accept only its tokens."""
    authority = Authority()
    async with (
        open_openid_simulator(tls=authority.server, now=now) as openid,
        open_transport(authority.client) as transport,
    ):
        claims = frozenset({"preferred_username"})
        client = OAuthClient(openid.token_endpoint, CLIENT_ID, CLIENT_SECRET, user_claims=claims)
        endpoint = TokenEndpoint(client, transport, now)

        def servers(transport: Transport, eas: EasSimulator) -> Mapping[str, EasServer]:
            eas.identities.passwords, eas.identities.user_of = False, openid.user_of
            return {"main": EasServer(eas.url, transport, Policy(), tokens=endpoint, basic=False)}

        yield openid, servers


def signed_in(
    openid: OpenIdSimulator, verifier: str = VERIFIER, redirect: str = REDIRECT, user: str = ANN
) -> OAuthCredential:
    """Return what an app sends for ann after a user signed in; its `verifier` and `redirect` may not be the code's."""
    code = openid.code(user, VERIFIER, REDIRECT)
    return OAuthCredential(ANN, "", code=AuthorizationCode(code, verifier, redirect))


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
            # The store shows "watching" from before, so only a held Ping tells that the watch goes on. By then this
            # simulator has complained about the sync keys of the first one, which it does not know.
            await until(lambda: role.eas.held == 1)
            assert openid.refreshes[ANN] > asked
            assert not openid.revoked(ANN)
            role.eas.records.complaints.clear()


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


async def test_a_code_is_exchanged_once_and_the_grant_stored_in_its_place(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        shown = signed_in(openid)
        phone = await role.register("phone", credential=shown)

        assert (await role.judged(phone)).registration.state is RegistrationState.ACTIVE
        await watching(role)
        kept = await stored(role)
        assert (kept.code, kept.grant, openid.exchanges) == (None, shown.grant, 1)
        assert kept.refresh_token

        again = await role.register("again", credential=shown)
        assert (await role.judged(again)).registration.state is RegistrationState.ACTIVE
        assert openid.exchanges == 1
        assert not openid.revoked(ANN)
    assert b"canary-" not in (tmp_path / "relay.sqlite3").read_bytes()


async def test_a_code_does_not_wait_for_a_mail_server_that_is_away(tmp_path: Path) -> None:
    async with provider() as (openid, servers):
        async with open_watch_role(tmp_path, servers) as role:
            role.eas.break_backend()
            phone = await role.register("phone", credential=signed_in(openid))
            await until(lambda: openid.exchanges == 1)

            async def exchanged() -> bool:
                (candidate,) = (await recorded(role)).candidates
                found = role.key.open((await recorded(role)).mailbox, candidate.sealed)
                return isinstance(found, OAuthCredential) and found.code is None

            await until(exchanged)
            key = (tmp_path / "sealing.pem").read_bytes()

        async with open_watch_role(tmp_path, servers, key=key) as role:
            assert (await role.judged(phone)).registration.state is RegistrationState.ACTIVE
            assert openid.exchanges == 1


@pytest.mark.parametrize(("verifier", "redirect"), [("another-verifier" * 3, REDIRECT), (VERIFIER, f"{REDIRECT}/")])
async def test_who_did_not_ask_for_a_code_gets_nothing_for_it_and_takes_no_try(
    tmp_path: Path, verifier: str, redirect: str
) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        for number in range(4):
            phone = await role.register(f"phone-{number}", credential=signed_in(openid, verifier, redirect))
            assert (await role.judged(phone)).registration.state is RegistrationState.REFUSED
        assert (openid.exchanges, role.requests("OPTIONS")) == (4, 0)

        good = await role.register("good", credential=signed_in(openid))
        assert (await role.judged(good)).registration.state is RegistrationState.ACTIVE


async def test_a_token_endpoint_that_is_busy_is_asked_again_with_the_code(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        openid.fails_with = 503
        phone = await role.register("phone", credential=signed_in(openid))

        async def shown() -> bool:
            return (await recorded(role)).mailbox.reason is not None

        await until(shown)
        assert (await role.view(phone)).candidate_pending
        openid.fails_with = None
        assert (await role.judged(phone)).registration.state is RegistrationState.ACTIVE


async def test_a_grant_without_a_refresh_token_is_not_taken(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        openid.offline = False
        phone = await role.register("phone", credential=signed_in(openid))

        assert (await role.judged(phone)).registration.state is RegistrationState.REFUSED
        assert role.requests("OPTIONS") == 0


@pytest.mark.parametrize("by_code", [True, False])
async def test_a_grant_of_another_user_is_refused_though_the_mail_server_would_take_it(
    tmp_path: Path, by_code: bool
) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        role.eas.identities.user_of = lambda _: ANN
        await role.judged(await role.register("phone", credential=signed_in(openid)))
        await watching(role)
        asked = role.requests("OPTIONS")
        grant = signed_in(openid, user=BEN) if by_code else OAuthCredential(ANN, openid.grant(BEN))
        stranger = await role.register("stranger", credential=grant)

        assert (await role.judged(stranger)).registration.state is RegistrationState.REFUSED
        assert role.requests("OPTIONS") == asked
        assert (await stored(role)).grant != grant.grant


async def test_a_watch_goes_on_with_a_new_sign_in_after_its_grant_was_withdrawn(tmp_path: Path) -> None:
    async with provider() as (openid, servers), open_watch_role(tmp_path, servers) as role:
        phone = await role.register("phone", credential=signed_in(openid))
        await role.judged(phone)
        await watching(role)
        before = (await stored(role)).grant
        openid.revoke(ANN)
        await role.change_credential(phone, signed_in(openid))

        async def replaced() -> bool:
            return (await stored(role)).grant != before

        await until(replaced)
        await watching(role)
        assert (await stored(role)).code is None
