"""Kerberos tickets: GSSAPI [RFC 2743] over MIT's libkrb5, the optional extra `kerberos`; the only importer of gssapi.

The relay's own ticket comes from its keytab and stays in memory; libkrb5 renews it after half of its lifetime. Every
call may wait for a KDC, so all calls run in a few threads of their own, each with a time limit.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex
from time import monotonic
from typing import Any, Final

import gssapi

from eas_watcher.auth.negotiate import Principal, Service, Step, read_failure
from eas_watcher.errors import AccessDenied, EasError, Unreachable
from eas_watcher.reasons import Reason

PATIENCE: Final = 30.0
"""Seconds for a ticket; libkrb5 asks every KDC of a realm several times before it gives up."""
AT_ONCE: Final = 8  # threads; a ticket takes 15 ms when the KDC is near
AHEAD: Final = 300.0
"""Seconds before the expiry of a user's tickets that the relay gets new ones, so that no request has an expired one."""
NEW_CACHE_GAP: Final = 600.0
"""Seconds at least between two new caches for the relay's own ticket; libkrb5 never frees the memory of one."""

MECHANISM: Final = gssapi.MechType.kerberos
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
