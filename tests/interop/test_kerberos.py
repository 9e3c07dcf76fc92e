"""Tickets of KDCs of other projects: MIT's for plain Negotiate, Samba's domain controller for delegation."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eas_watcher.auth.negotiate import KerberosCredential, Principal, Service
from eas_watcher.commands.options import Options
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.commands.request import HttpRequest
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, Unreachable
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose
from eas_watcher.tools.probe.arguments import Order, run_probe
from eas_watcher.tools.probe.finding import works
from eas_watcher.transport.http import open_transport
from eas_watcher.transport.negotiate import NegotiateTransport
from relay.doctor.mail_servers import MailServers
from relay.process.clock import now
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from relay.security.invitations import invite
from tests.integration.eas_world import hurried, hurry
from tests.interop.kerberos.acceptor import acceptor
from tests.interop.kerberos.library import install_library
from tests.interop.kerberos.mit import running_kdc
from tests.interop.kerberos.realm import MAIL, REALM, RELAY, Realm, run, write_krb5_conf
from tests.interop.kerberos.samba import ADDRESS, running_domain
from tests.interop.packages import Unavailable, install, unavailable
from tests.site import open_site
from tests.waiting import SOON

ANN = "ann@example.com"
HERE = "HTTP@127.0.0.1"


@contextmanager
def running(start: Callable[[], Any]) -> Iterator[Realm]:
    """Run a KDC; skip, or fail with RELAY_INTEROP=required, where that is impossible."""
    try:
        install_library()
        opened = start()
        realm = opened.__enter__()
    except Unavailable as reason:
        unavailable(reason)
    try:
        yield realm
    finally:
        opened.__exit__(None, None, None)


@pytest.fixture(scope="module")
def mit() -> Iterator[Realm]:
    with running(running_kdc) as realm:
        yield realm


@pytest.fixture(scope="module")
def domain() -> Iterator[Realm]:
    with running(running_domain) as realm:
        yield realm


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[[Realm], None]:
    """Make this process a client of a realm."""
    return lambda realm: monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))


def relay_at(realm: Realm, target: str = MAIL) -> Service:
    return Service(RELAY, realm.keytab("relay"), target)


@asynccontextmanager
async def tickets(service: Service) -> AsyncIterator[Any]:
    from eas_watcher.transport.kerberos import Kerberos  # noqa: PLC0415 -- may have been installed only now

    kerberos = Kerberos(service)
    try:
        yield kerberos
    finally:
        kerberos.close()


async def refused(service: Service, user: str) -> EasError:
    async with tickets(service) as kerberos:
        with pytest.raises(EasError) as caught:
            await kerberos.tickets(Principal(user)).get(HERE)
    return caught.value


@asynccontextmanager
async def demanding(realm: Realm) -> AsyncIterator[tuple[EasSimulator, Any]]:
    """Run a mail server that accepts tickets only and ties connections to their first user, and a transport to it."""
    ca = ThrowAwayCa()
    async with (
        open_eas_simulator(tls=ca.server_context()) as eas,
        open_transport(ca.client_context(), reuse=False) as transport,
    ):
        for user in (ANN, "ben@example.com", ADDRESS):
            eas.add_mailbox(user, "never used")
        eas.identities.passwords, eas.identities.persists = False, True
        eas.identities.ticket_of = acceptor(realm.keytab("mail"))
        yield eas, transport


def options(eas: EasSimulator, user: str) -> HttpRequest:
    account = Account(MailboxId("m"), eas.url, user, DeviceId("D1"), KerberosCredential(user, ""))
    return compose(account, Options(), None, None)


async def test_plain_negotiate_is_accepted_and_each_token_once(mit: Realm, client: Callable[[Realm], None]) -> None:
    client(mit)
    ann = Service(f"ann@{REALM}", mit.keytab("ann"), MAIL)
    async with demanding(mit) as (eas, transport), tickets(ann) as kerberos:
        negotiating = NegotiateTransport(transport, kerberos.tickets(None))
        for _ in range(3):
            assert (await negotiating.send(options(eas, ANN))).status == 200

        assert [request.command for request in eas.records.log(ANN)] == ["OPTIONS"] * 3
        assert len(set(eas.identities.tickets)) == 3
        assert eas.identities.ticket_of is not None
        assert (
            eas.identities.ticket_of(eas.identities.tickets[0]) is None
        )  # a token that comes a second time is a replay


async def test_the_probe_shows_the_ticket_of_whoever_ran_kinit(
    mit: Realm, client: Callable[[Realm], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(mit)
    cache = f"FILE:{tmp_path / 'cache'}"
    monkeypatch.setenv("KRB5CCNAME", cache)
    install("krb5-user")
    environment = {"KRB5_CONFIG": str(mit.krb5_conf), "KRB5CCNAME": cache}
    run(("kinit", "-k", "-t", str(mit.keytab("ann")), f"ann@{REALM}"), environment)
    ca = ThrowAwayCa()
    async with open_eas_simulator(tls=ca.server_context()) as eas:
        eas.add_mailbox(ANN, "never used")
        eas.identities.passwords, eas.identities.persists = False, True
        eas.identities.ticket_of = acceptor(mit.keytab("mail"))
        credential = KerberosCredential(ANN, "")
        order = Order(eas.url, credential, ca.client_context(), Acknowledgement.THIRD_PARTY, 0.5, MAIL)
        findings = {finding.step: finding for finding in await run_probe(order, lambda _: None)}

    assert works(findings.values()), findings
    assert findings["Login"].text == "the server offers Negotiate"


async def test_a_server_that_cannot_decrypt_the_ticket_refuses_it(mit: Realm, client: Callable[[Realm], None]) -> None:
    client(mit)
    async with demanding(mit) as (eas, transport), tickets(Service(f"ann@{REALM}", mit.keytab("ann"), RELAY)) as other:
        with pytest.raises(AccessDenied, match="refuses the Kerberos ticket"):
            await NegotiateTransport(transport, other.tickets(None)).send(options(eas, ANN))


async def test_mits_database_lets_nobody_delegate(mit: Realm, client: Callable[[Realm], None]) -> None:
    client(mit)

    error = await refused(relay_at(mit), f"ann@{REALM}")

    assert isinstance(error, AccessDenied)
    assert error.reason == Reason.KERBEROS_DELEGATION


async def test_a_keytab_that_is_not_the_relays_is_named(
    mit: Realm, domain: Realm, client: Callable[[Realm], None]
) -> None:
    client(mit)

    error = await refused(relay_at(domain), f"ann@{REALM}")

    assert isinstance(error, AccessDenied)
    assert error.reason == Reason.KERBEROS_KEYTAB


async def test_a_kdc_that_is_away_is_waited_for(mit: Realm, client: Callable[[Realm], None]) -> None:
    client(mit)
    mit.daemon.stop()
    try:
        error = await refused(relay_at(mit), f"ann@{REALM}")
    finally:
        mit.daemon.start()

    assert isinstance(error, Unreachable)
    assert not error.reached


async def test_the_doctor_gets_a_ticket_or_names_why_there_is_none(
    mit: Realm, domain: Realm, client: Callable[[Realm], None]
) -> None:
    client(mit)
    asks = MailServers(now, Random(1), PeerClocks(now))

    async def found(service: Service) -> tuple[str, str]:
        (finding,) = await asks.look_at_kdc("main", "https://mail.example.com", service)
        return finding.grade.value, f"{finding.text} {finding.remedy}"

    good = await found(relay_at(mit))
    foreign_keytab = await found(relay_at(domain))
    no_service = await found(relay_at(mit, "HTTP/nowhere.example.com@EXAMPLE.COM"))
    mit.daemon.stop()
    try:
        away = await found(relay_at(mit))
    finally:
        mit.daemon.start()

    assert good[0] == "good"
    assert (foreign_keytab[0], no_service[0], away[0]) == ("bad", "bad", "bad")
    assert "the KDC does not take the relay's own key" in foreign_keytab[1]
    assert "HTTP/nowhere.example.com" in no_service[1]
    assert "port 88 to the KDC" in away[1]


async def test_the_relay_acts_for_each_user_in_their_own_name(domain: Realm, client: Callable[[Realm], None]) -> None:
    client(domain)
    async with demanding(domain) as (eas, transport), tickets(relay_at(domain)) as kerberos:
        for user in ("ann", "ben", "ann"):
            negotiating = NegotiateTransport(transport, kerberos.tickets(Principal(f"{user}@{REALM}")))
            assert (await negotiating.send(options(eas, f"{user}@example.com"))).status == 200

        assert len(eas.records.log(ANN)) == 2
        assert len(eas.records.log("ben@example.com")) == 1


async def test_a_user_may_be_looked_up_by_address(domain: Realm, client: Callable[[Realm], None]) -> None:
    client(domain)
    async with tickets(relay_at(domain)) as kerberos:
        ticket = await kerberos.tickets(Principal(ADDRESS, enterprise=True)).get(HERE)

    assert ticket.fresh


@pytest.mark.parametrize(
    ("user", "reason"), [("secret", Reason.KERBEROS_DELEGATION), ("locked", Reason.KERBEROS_USER_LOCKED)]
)
async def test_the_directory_may_withhold_a_user(
    domain: Realm, client: Callable[[Realm], None], user: str, reason: Reason
) -> None:
    client(domain)

    error = await refused(relay_at(domain), f"{user}@{REALM}")

    assert isinstance(error, AccessDenied)
    assert error.reason == reason, (error, error.__cause__)


async def test_an_unknown_user_ends_the_watch(domain: Realm, client: Callable[[Realm], None]) -> None:
    client(domain)

    error = await refused(relay_at(domain), f"nobody@{REALM}")

    assert isinstance(error, CredentialVoid)
    assert error.reason == Reason.KERBEROS_USER_UNKNOWN


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (f"HTTP/closed.example.com@{REALM}", Reason.KERBEROS_DELEGATION),
        (f"HTTP/nowhere.example.com@{REALM}", Reason.KERBEROS_TARGET),
    ],
)
async def test_the_relay_may_go_to_the_mail_server_only(
    domain: Realm, client: Callable[[Realm], None], target: str, reason: str
) -> None:
    client(domain)

    error = await refused(relay_at(domain, target), f"ann@{REALM}")

    assert isinstance(error, AccessDenied)
    assert error.reason == reason


async def test_without_forwardable_the_kdc_refuses_and_the_reason_leads_to_the_documents(
    domain: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_krb5_conf(tmp_path / "krb5.conf", domain.port, forwardable=False)
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))

    error = await refused(relay_at(domain), f"ann@{REALM}")

    assert isinstance(error, AccessDenied)
    assert error.reason == Reason.KERBEROS_DELEGATION


def test_tickets_are_got_anew_before_they_end(domain: Realm, client: Callable[[Realm], None]) -> None:
    client(domain)

    @hurried
    async def live() -> None:
        async with tickets(relay_at(domain)) as kerberos:
            ann = kerberos.tickets(Principal(f"ann@{REALM}"))
            assert (await ann.get(HERE)).fresh
            hurry(9 * 3600)
            assert not (await ann.get(HERE)).fresh
            hurry(3600 - 200)  # the domain's tickets live ten hours
            assert (await ann.get(HERE)).fresh

    live()


async def test_many_users_at_once_share_eight_threads(domain: Realm, client: Callable[[Realm], None]) -> None:
    client(domain)
    async with tickets(relay_at(domain)) as kerberos:
        got = await asyncio.gather(
            *(kerberos.tickets(Principal(f"{user}@{REALM}")).get(HERE) for user in ("ann", "ben") * 50)
        )

    assert len({ticket.token for ticket in got}) == 100


async def test_the_whole_relay_pushes_for_a_user_whose_secrets_it_never_saw(
    domain: Realm, client: Callable[[Realm], None], tmp_path: Path
) -> None:
    client(domain)
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "invitations.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    keytab = domain.keytab("relay")
    keytab.chmod(0o600)
    table = "RELAY__SERVERS__SANDBOX__"
    environ = {
        "KRB5_CONFIG": str(domain.krb5_conf),
        f"{table}CREDENTIALS": "kerberos",
        f"{table}KERBEROS_REALM": REALM,
        f"{table}KERBEROS_PRINCIPAL": RELAY,
        f"{table}KERBEROS_KEYTAB_FILE": str(keytab),
        f"{table}KERBEROS_TARGET": MAIL,
        f"{table}KERBEROS_INVITATION_KEY_FILE": str(public),
    }

    def invitation(user: str, signer: Ed25519PrivateKey = key) -> dict[str, str]:
        text = invite(signer, "sandbox", user, now().replace(year=now().year + 1))
        return {"kind": "kerberos", "invitation": text}

    async with open_site(tmp_path / "sandbox", environ) as site, site.relay():
        site.sandbox.eas.add_mailbox(ANN, "never used")
        identities = site.sandbox.eas.identities
        identities.passwords, identities.persists = False, True
        identities.ticket_of = acceptor(domain.keytab("mail"))

        status, answer = await site.register(ANN, credential=invitation(ANN))
        assert (status, answer["state"]) == (201, "active"), answer
        status, answer = await site.register(ANN, credential=invitation(ANN, Ed25519PrivateKey.generate()))
        assert (status, answer["errors"][0]["field"]) == (400, "credential.invitation")
        await site.held()
        site.deliver(ANN, subject="Canary subject")

        (push,) = await site.sandbox.apns.wait(1, SOON)
        assert b"Canary" not in push.body
        assert not site.sandbox.eas.complaints
