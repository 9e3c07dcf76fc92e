"""Kerberos tickets: GSSAPI [RFC 2743] over MIT's libkrb5, the optional extra `kerberos`; the only importer of gssapi.

The relay's own ticket comes from its keytab and stays in memory; libkrb5 renews it after half of its lifetime. Every
call may wait for a KDC, so all calls run in a few threads of their own, each with a time limit.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from time import monotonic
from typing import Any, Final

import gssapi

from eas_watcher.auth.negotiate import Principal, Service, Step, read_failure
from eas_watcher.errors import AccessDenied, EasError, Unreachable
from eas_watcher.own_thread import in_own_thread
from eas_watcher.proxy.faults import proxy_ticket_missing
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.reasons import Reason

PATIENCE: Final = 30.0
"""Seconds for a ticket; libkrb5 asks every KDC of a realm several times before it gives up."""
PATIENCE_FOR_PROXY: Final = 8.0  # seconds for a ticket; less than those for a tunnel, so that the KDC is named
AT_ONCE: Final = 8  # threads; a ticket takes 15 ms when the KDC is near
AHEAD: Final = 300.0
"""Seconds before the expiry of a user's tickets that the relay gets new ones, so that no request has an expired one."""
NEW_CACHE_GAP: Final = 600.0
"""Seconds at least between two new caches for the relay's own ticket; libkrb5 never frees the memory of one."""

MECHANISM: Final = gssapi.MechType.kerberos
NEGOTIATION: Final = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")  # SPNEGO [RFC 4178 3]
ENTERPRISE: Final = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2.6")  # GSS_KRB5_NT_ENTERPRISE_NAME


@dataclass(frozen=True, slots=True)
class Ticket:
    """One token for one request."""

    token: bytes
    fresh: bool
    """True if it came from the KDC for this request."""


class Kerberos:
    """The tickets of one service, for itself or in the name of its users."""

    def __init__(self, service: Service) -> None:
        """Act as `service`; the first ticket is the first question to a KDC."""
        self._service = service
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="kerberos")
        self._cache, self._cached_at = _new_cache(), monotonic()

    def close(self) -> None:
        """Stop asking KDCs; a call that waits for one ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def tickets(self, user: Principal | None) -> "Tickets":
        """Return the tickets of one user; None: the service's own."""
        return Tickets(self, user)

    async def ticket(self, user: Principal | None, service: str, held: Any) -> tuple[bytes, Any, float]:
        """Return a token for `service`, the user's credentials, and their remaining lifetime in seconds.

        `held` are the user's credentials from an earlier call, None at first. Raises the error that `read_failure`
        returns, and Unreachable when the KDC takes too long.
        """
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._pool, self._ticket, user, service, held)
        try:
            return await asyncio.wait_for(work, PATIENCE)
        except TimeoutError as error:
            raise Unreachable("no Kerberos ticket in time: the KDC does not answer", reached=False) from error

    def _ticket(self, user: Principal | None, service: str, held: Any) -> tuple[bytes, Any, float]:
        own_target = self._service.target
        with _reading(Step.TARGET, own_target or service):
            kind = gssapi.NameType.kerberos_principal if own_target else gssapi.NameType.hostbased_service
            target = gssapi.Name(own_target or service, kind)
        credentials = self._own() if user is None else held or self._on_behalf_of(user)
        with _reading(Step.TARGET, own_target or service):
            # One message without mutual authentication is enough: TLS has authenticated the server.
            context = gssapi.SecurityContext(
                name=target,
                creds=credentials,
                mech=MECHANISM,
                flags=gssapi.RequirementFlag.integrity,
                usage="initiate",
            )
            return bytes(context.step()), credentials, float(credentials.lifetime or 0)

    def _own(self) -> Any:
        service = self._service
        with _reading(Step.OWN):
            if not service.principal:
                return gssapi.Credentials(usage="initiate", mechs=[MECHANISM])
            name = gssapi.Name(service.principal, gssapi.NameType.kerberos_principal)
            store = {b"client_keytab": f"FILE:{service.keytab}".encode(), b"ccache": self._cache.encode()}
            return gssapi.Credentials(name=name, usage="initiate", mechs=[MECHANISM], store=store)

    def _on_behalf_of(self, user: Principal) -> Any:
        kind = ENTERPRISE if user.enterprise else gssapi.NameType.kerberos_principal
        own = self._own()
        try:
            with _reading(Step.USER):
                return own.impersonate(gssapi.Name(user.name, kind), usage="initiate", mechs=[MECHANISM])
        except AccessDenied as error:
            # The relay's own ticket may come from a KDC that was reinstalled since.
            if error.reason is Reason.KERBEROS_REFUSED and monotonic() > self._cached_at + NEW_CACHE_GAP:
                self._cache, self._cached_at = _new_cache(), monotonic()
            raise


class Tickets:
    """The tickets of one user, kept as long as they are valid."""

    __slots__ = ("_ends_at", "_held", "_kerberos", "_targets", "_user")

    def __init__(self, kerberos: Kerberos, user: Principal | None) -> None:
        """Get the tickets of `user`, or of the service itself if it is None, from `kerberos`."""
        self._kerberos = kerberos
        self._user = user
        self._held: Any = None
        self._targets: set[str] = set()
        self._ends_at = 0.0

    async def get(self, service: str) -> Ticket:
        """Return a token for one request to `service`; no two requests may use the same token. Raises EasError."""
        now = asyncio.get_running_loop().time()
        if self._held is not None and now >= self._ends_at - AHEAD:
            self.forget()
        fresh = service not in self._targets
        token, held, lifetime = await self._kerberos.ticket(self._user, service, self._held)
        if held is not self._held:
            self._held, self._ends_at = held, now + lifetime
        self._targets.add(service)
        return Ticket(token, fresh)

    def forget(self) -> None:
        """Drop all tickets."""
        self._held = None
        self._targets.clear()


class ProxyTickets:
    """The relay's own tickets for one proxy, spoken as browsers do, by SPNEGO [RFC 4178] with Kerberos alone."""

    def __init__(self, proxy: Proxy) -> None:
        """Show the key of the proxy's keytab, or what the process has a ticket for."""
        self._proxy = proxy
        self._cache = _new_cache()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def begin(self) -> "ProxyNegotiation":
        """Return the tokens for one tunnel."""
        return ProxyNegotiation(self)

    async def step(self, context: Any, challenge: bytes) -> tuple[Any, bytes]:
        """Return the context of a conversation, None before it, and its next token; empty: none follows.

        Raises NotConnected.
        """
        try:
            async with self._slots, asyncio.timeout(PATIENCE_FOR_PROXY):
                return await in_own_thread(partial(self._step, context, challenge), "ticket for a proxy")
        except TimeoutError as error:
            raise proxy_ticket_missing(self._proxy, "the KDC does not answer in time") from error
        except EasError as error:
            raise proxy_ticket_missing(self._proxy, str(error)) from error

    def _step(self, context: Any, challenge: bytes) -> tuple[Any, bytes]:
        if context is None:
            context = self._context()
        with _reading(Step.TARGET, f"HTTP@{self._proxy.host}"):
            return context, bytes(context.step(challenge or None) or b"")

    def _context(self) -> Any:
        proxy = self._proxy
        with _reading(Step.OWN):
            name = gssapi.Name(proxy.user, gssapi.NameType.kerberos_principal) if proxy.user else None
            store = None
            if proxy.keytab is not None:
                store = {b"client_keytab": f"FILE:{proxy.keytab}".encode(), b"ccache": self._cache.encode()}
            credentials = gssapi.Credentials(name=name, usage="initiate", mechs=[NEGOTIATION], store=store)
            gssapi.raw.set_neg_mechs(credentials, [MECHANISM])  # no other mechanism, NTLM say, that a plug-in brings
        return gssapi.SecurityContext(
            name=gssapi.Name(f"HTTP@{proxy.host}", gssapi.NameType.hostbased_service),
            creds=credentials,
            mech=NEGOTIATION,
            flags=gssapi.RequirementFlag.integrity,
            usage="initiate",
        )


class ProxyNegotiation:
    """The tokens for one tunnel."""

    __slots__ = ("_context", "_tickets")

    def __init__(self, tickets: ProxyTickets) -> None:
        """Begin with the first token."""
        self._tickets = tickets
        self._context: Any = None

    async def answer(self, challenge: bytes) -> bytes:
        """Return the token after a challenge, which is empty at first; empty: none follows. Raises NotConnected."""
        self._context, token = await self._tickets.step(self._context, challenge)
        return token


def _new_cache() -> str:
    """Return the name of a credential cache of libkrb5 that is new in this process."""
    return f"MEMORY:push-relay-{token_hex(8)}"


@contextmanager
def _reading(step: Step, target: str = "") -> Iterator[None]:
    """Turn errors of GSSAPI into ours."""
    try:
        yield
    except gssapi.exceptions.GSSError as error:
        raise _read(error, step, target) from error


def _read(error: Any, step: Step, target: str) -> EasError:
    code = error.min_code - (1 << 32) if error.min_code >= 1 << 31 else error.min_code
    words = "; ".join(error.get_all_statuses(error.min_code, is_maj=False)) or "no reason given"
    return read_failure(step, code, words, target)
