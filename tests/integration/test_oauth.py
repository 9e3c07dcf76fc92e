"""Watches with access tokens over TLS: a simulated OpenID provider, and a mail server that accepts its tokens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest

from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.grant import OAuthClient
from eas_watcher.commands.options import Options
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, CredentialVoid, ServerBusy, Unauthorized, Unreachable
from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose
from eas_watcher.transport.bearer import FRESH, BearerTransport
from eas_watcher.transport.http import open_transport
from eas_watcher.transport.tokens import AHEAD, JITTER, TokenEndpoint, Tokens
from relay.process.clock import now
from relay.sandbox.eas.failures import AnswerHttp, FailurePlan
from tests.fakes.openid import AUDIENCE, CLIENT_ID, CLIENT_SECRET, OpenIdSimulator, open_openid_simulator
from tests.fakes.tls import Authority
from tests.integration.eas_world import ANN, ONE_MAIL, WatchWorld, hurried, hurry, world
from tests.waiting import until

HOUR = 3600
DIAGNOSED = {
    "x-ms-diagnostics": '2000003;reason="The audience claim value is invalid.";error_category="invalid_resource"'
}


@dataclass
class Login:
    """Ann's grant, the client that gets tokens for it, and its stored rotations."""

    eas: WatchWorld
    openid: OpenIdSimulator
    tokens: Tokens
    kept: list[OAuthCredential] = field(default_factory=list)
    holds: bool = False
    """Whether requests are held instead of sent."""

    @property
    def transport(self) -> BearerTransport:
        return BearerTransport(self.eas.transport, self.tokens)

    @property
    def account(self) -> Account:
        url = self.eas.simulator.url
        return Account(MailboxId("ann"), url, ANN, DeviceId("Dann"), OAuthCredential(ANN, "never-sent"))

    @property
    def asked(self) -> int:
        return self.openid.refreshes[ANN]

    async def options(self) -> HttpReply:
        request = compose(self.account, Options(), None, None)
        if not self.holds:
            return await self.transport.send(request)
        answer: asyncio.Future[HttpReply | Exception] = asyncio.get_running_loop().create_future()
        await self.transport.hold(request, answer.set_result)
        result = await answer
        if isinstance(result, HttpReply):
            return result
        raise result

    def watch(self) -> None:
        memory = self.eas.ann.memory(frozenset({CollectionClass.EMAIL}))
        self.eas.fleet.start(self.account, self.transport, memory, self.eas.policy)


@asynccontextmanager
async def login(lifetime: int = HOUR, *, holds: bool = False) -> AsyncIterator[Login]:
    authority = Authority()
    async with (
        world() as eas,
        open_openid_simulator(tls=authority.server, now=now, lifetime=lifetime) as openid,
        open_transport(authority.client) as transport,
    ):
        identities = eas.simulator.identities
        identities.passwords, identities.user_of = False, openid.user_of
        identities.authority = openid.token_endpoint
        client = OAuthClient(openid.token_endpoint, CLIENT_ID, CLIENT_SECRET, audience=frozenset({AUDIENCE}))
        kept: list[OAuthCredential] = []

        async def keep(credential: OAuthCredential) -> None:
            kept.append(credential)

        credential = OAuthCredential(ANN, openid.grant(ANN))
        yield Login(
            eas, openid, Tokens(credential, TokenEndpoint(client, transport, now), keep, Random(1)), kept, holds
        )


@hurried
async def test_a_watch_with_tokens_tells_of_a_new_mail() -> None:
    async with login() as ann:
        ann.watch()
        await ann.eas.until_held()
        ann.eas.simulator.deliver(ANN)
        await until(lambda: ann.eas.ann.changes == ONE_MAIL)

        assert ann.asked == 1
        assert len(set(ann.eas.simulator.identities.tokens)) == 1


@hurried
async def test_a_rotated_refresh_token_is_kept_before_its_access_token_is_used() -> None:
    async with login() as ann:
        await ann.options()
        first = ann.kept[-1].refresh_token
        ann.openid.expire(ANN)
        hurry(FRESH + 1)
        await ann.options()

        assert [credential.grant for credential in ann.kept] == [ann.kept[0].grant] * 2
        assert ann.kept[-1].refresh_token != first
        assert not ann.openid.revoked(ANN)


@hurried
async def test_a_token_is_renewed_ahead_of_its_end_while_the_old_one_still_serves() -> None:
    async with login() as ann:
        await ann.options()
        ann.openid.delay = 0.2
        hurry(HOUR - AHEAD - JITTER - 1)
        await ann.options()
        assert ann.asked == 1
        hurry(JITTER + 2)

        await ann.options()  # begins the renewal, waits for none
        assert ann.asked <= 2
        await until(lambda: ann.asked == 2 and ann.tokens.renewing is None)
        await ann.options()
        assert len(set(ann.eas.simulator.identities.tokens)) == 2


@hurried
async def test_a_token_that_ends_during_a_ping_is_renewed_beside_it() -> None:
    async with login() as ann:
        await ann.tokens.get(0)
        hurry(HOUR * 0.6)

        await ann.tokens.get(HOUR)
        await until(lambda: ann.asked == 2)


@pytest.mark.parametrize("holds", [False, True])
@hurried
async def test_a_refused_token_is_discarded_and_another_tried_once(holds: bool) -> None:
    async with login(holds=holds) as ann:
        await ann.options()
        ann.openid.expire(ANN)
        hurry(FRESH + 1)

        assert (await ann.options()).status == 200
        tokens = ann.eas.simulator.identities.tokens
        assert len(tokens) == 3
        assert len(set(tokens)) == 2


@pytest.mark.parametrize("holds", [False, True])
@hurried
async def test_a_fresh_token_that_is_refused_is_not_tried_again(holds: bool) -> None:
    async with login(holds=holds) as ann:
        ann.eas.simulator.identities.user_of = lambda _: None

        with pytest.raises(Unauthorized, match="invalid_token"):
            await ann.options()
        assert len(ann.eas.simulator.identities.tokens) == 1


@pytest.mark.parametrize("holds", [False, True])
@hurried
async def test_a_forbidden_token_is_replaced_once_and_the_servers_reason_told(holds: bool) -> None:
    async with login(holds=holds) as ann:
        await ann.options()
        hurry(FRESH + 1)
        ann.eas.simulator.fail(ANN, FailurePlan(AnswerHttp(403, DIAGNOSED), "OPTIONS", times=1))
        assert (await ann.options()).status == 200
        assert ann.asked == 2

        ann.eas.simulator.fail(ANN, FailurePlan(AnswerHttp(403, DIAGNOSED), "OPTIONS"))
        with pytest.raises(AccessDenied, match="2000003 The audience claim value is invalid") as caught:
            await ann.options()
        assert caught.value.reason == Reason.HTTP_403


@hurried
async def test_a_403_about_the_device_is_no_reason_for_another_token() -> None:
    async with login() as ann:
        await ann.options()
        hurry(FRESH + 1)
        ann.eas.simulator.fail(ANN, FailurePlan(AnswerHttp(403), "OPTIONS"))

        assert (await ann.options()).status == 403
        assert ann.asked == 1


@hurried
async def test_the_servers_diagnostics_reach_the_operator() -> None:
    async with login() as ann:
        refusal = {**DIAGNOSED, "WWW-Authenticate": 'Bearer authorization_uri="https://sts.example.com/authorize"'}
        ann.eas.simulator.fail(ANN, FailurePlan(AnswerHttp(401, refusal)))
        ann.watch()
        await until(lambda: bool(ann.eas.ann.conditions))

        detail = ann.eas.ann.conditions[-1].detail
        assert "2000003 The audience claim value is invalid." in detail
        assert "it wants tokens of sts.example.com" in detail


@hurried
async def test_a_revoked_grant_ends_the_watch_without_another_try() -> None:
    async with login() as ann:
        ann.watch()
        await ann.eas.until_held()
        ann.openid.revoke(ANN)
        hurry(FRESH + 1)
        ann.eas.simulator.deliver(ANN)
        await until(lambda: ann.eas.ann.conditions[-1].state is WatchState.CREDENTIAL_REFUSED)

        assert ann.eas.ann.conditions[-1].reason == Reason.OAUTH_INVALID_GRANT
        requests = len(ann.eas.simulator.identities.tokens)
        hurry(24 * HOUR)
        await ann.eas.until_idle()
        assert len(ann.eas.simulator.identities.tokens) == requests


@hurried
async def test_a_token_for_another_audience_is_never_shown_to_the_mail_server() -> None:
    async with login() as ann:
        ann.openid.audience = "https://graph.example.com"

        with pytest.raises(AccessDenied, match="another service"):
            await ann.options()
        assert not ann.eas.simulator.identities.tokens


@hurried
async def test_many_requests_at_once_buy_one_token() -> None:
    async with login() as ann:
        ann.openid.delay = 0.1
        await asyncio.gather(*(ann.options() for _ in range(20)))

        assert ann.asked == 1


@hurried
async def test_who_gives_up_waiting_does_not_spoil_the_renewal() -> None:
    async with login() as ann:
        ann.openid.delay = 0.3
        waiting = asyncio.get_running_loop().create_task(ann.options())
        await until(lambda: ann.tokens.renewing is not None)
        waiting.cancel()
        await asyncio.wait([waiting])
        await until(lambda: bool(ann.kept))

        assert (await ann.options()).status == 200
        assert not ann.openid.revoked(ANN)


@pytest.mark.parametrize(("status", "kind"), [(503, ServerBusy), (500, ServerBusy), (400, AccessDenied)])
def test_an_endpoint_in_trouble_is_no_refusal_of_the_user(status: int, kind: type[Exception]) -> None:
    @hurried
    async def ask() -> None:
        async with login() as ann:
            ann.openid.fails_with = status
            with pytest.raises(kind) as caught:
                await ann.options()
            assert not isinstance(caught.value, CredentialVoid)
            ann.openid.fails_with = None
            assert (await ann.options()).status == 200

    ask()


@hurried
async def test_an_endpoint_that_is_away_is_named() -> None:
    async with login() as ann:
        client = OAuthClient("https://127.0.0.1:1/token", CLIENT_ID)
        ann.tokens.endpoint = TokenEndpoint(client, ann.eas.transport, now)

        with pytest.raises(Unreachable, match="the token endpoint") as caught:
            await ann.options()
        assert caught.value.elsewhere
        assert not caught.value.reached


@hurried
async def test_a_held_request_that_is_given_up_reports_nothing_even_while_it_is_repeated() -> None:
    async with login() as ann:
        await ann.options()
        ann.openid.expire(ANN)
        ann.openid.delay = 0.2
        hurry(FRESH + 1)
        reported: list[HttpReply | Exception] = []
        held = await ann.transport.hold(compose(ann.account, Options(), None, None), reported.append)
        await until(lambda: ann.tokens.renewing is not None)
        await held.give_up()
        await until(lambda: ann.tokens.renewing is None)

        assert not reported
