"""One account at Apple: its key or certificate, its provider token, and its connections.

APNs ties a connection to one team's tokens or to one certificate, so each account has its own connections.
"""

import ssl
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, TypeAlias

from aioapns.connection import JWTAuthorizationHeaderProvider

from eas_watcher.http2.keepalive import KeepaliveTimings
from eas_watcher.transport.tls import client_context
from relay.domain.clock import Clock
from relay.domain.model import Environment
from relay.network.dialling import Dialler
from relay.push.apns.config import ApnsAccount, ApnsConfig, ApnsToken
from relay.push.apns.exchange import Record
from relay.push.apns.pool import ApnsPool
from relay.push.key_files import KeyFile
from relay.security.certificates import is_p256, public_key_of, read_certificate

RENEWAL_GAP: Final = 1200.0
"""Seconds; Apple refuses provider tokens made more often [Apple: Establishing a token-based connection to APNs]."""
LIFE: Final = timedelta(minutes=30)
"""The time that one provider token is used; Apple wants 20 to 60 minutes [same]."""
NO_AGE: Final = timedelta()


class Key(NamedTuple):
    """The content of a .p8 file."""

    pem: str
    key_id: str


class Pem(NamedTuple):
    """The content of a certificate's file; ssl reads the file itself, so this only serves to notice a change."""

    content: bytes


KeyMaterial: TypeAlias = Key | Pem


class ProviderTokens:
    """The one provider token for all connections of an account, renewed every 30 minutes."""

    def __init__(self, key: Key, team_id: str, clock: Clock) -> None:
        """Sign a first token; raises ValueError when `key` is not a P-256 key."""
        self._team_id = team_id
        self._clock = clock
        self._renewed_at: float | None = None
        self.replace(key)

    def replace(self, key: Key) -> None:
        """Sign with another key from now on; raises ValueError when it is not a P-256 key."""
        self._key = key
        self._sign()

    def header(self) -> str:
        """Return the value of the authorization header."""
        if not NO_AGE <= self._clock() - self._made_at < LIFE:  # below NO_AGE: the clock was set back
            self._sign()
        return self._header

    def expired(self, header: str, now: float) -> bool:
        """React to Apple's answer that the token in a header has expired; True if there is another token to try.

        The first of many pushes with that token renews it. `now` is `loop.time()`.
        """
        if header != self.header():
            return True
        if self._renewed_at is not None and now - self._renewed_at < RENEWAL_GAP:
            return False
        self._renewed_at = now
        self._sign()
        return True

    def _sign(self) -> None:
        provider = JWTAuthorizationHeaderProvider(self._key.pem, self._key.key_id, self._team_id)
        try:
            self._header: str = provider.get_header()  # type: ignore[no-untyped-call]  # aioapns
        except (ValueError, TypeError) as error:
            raise ValueError("holds no ECDSA P-256 key") from error
        self._made_at = self._clock()


class Account:
    """One account with its connections to both environments; needs a running loop."""

    def __init__(
        self,
        account: ApnsAccount,
        config: ApnsConfig,
        dialler: Dialler,
        timings: KeepaliveTimings,
        random: Random,
        clock: Clock,
        record: Record,
    ) -> None:
        """Read the account's file; `record` gets the requests that are about to leave.

        Raises ValueError or OSError when the file holds no usable key or certificate.
        """
        authentication = account.authentication
        self.table = account.table
        self._path = authentication.file
        self._ca_file = config.ca_file
        self.tokens: ProviderTokens | None = None
        self.file: KeyFile[Key] | KeyFile[Pem]
        try:
            if isinstance(authentication, ApnsToken):
                keys = KeyFile(account.file_setting, authentication.file, partial(read_key, authentication))
                self.tokens = ProviderTokens(keys.value, authentication.team_id, clock)
                keys.listen(self._new_key)
                self.file = keys
            else:
                pems = KeyFile(account.file_setting, authentication.file, read_pem)
                pems.listen(self._new_certificate)
                self.file = pems
        except ValueError as error:
            raise ValueError(f"{account.file_setting} {error}") from error
        authorization = None if self.tokens is None else self.tokens.header
        tls = self._tls()
        self._pools = {
            environment: ApnsPool(
                endpoint,
                dialler,
                tls,
                authorization,
                in_flight=config.in_flight,
                timings=timings,
                random=random,
                record=record,
            )
            for environment, endpoint in config.endpoints.items()
            if environment in account.environments
        }

    def pool(self, environment: Environment) -> ApnsPool:
        """Return the connections to one environment; raises KeyError when the account is not for it."""
        return self._pools[environment]

    @property
    def in_flight(self) -> int:
        """The number of pushes that wait for a connection or for an answer."""
        return sum(pool.in_flight for pool in self._pools.values())

    @property
    def failure(self) -> Exception | None:
        """Why the last attempt to connect to an environment failed; None: none did."""
        return next((pool.failure for pool in self._pools.values() if pool.failure is not None), None)

    async def drain(self, patience: float) -> None:
        """Close all connections, after so many seconds at most for the pushes in flight on each."""
        for pool in self._pools.values():
            await pool.drain(patience)

    def _tls(self) -> ssl.SSLContext:
        tls = client_context(self._ca_file)
        tls.set_alpn_protocols(["h2"])
        if self.tokens is None:
            tls.load_cert_chain(self._path)
        return tls

    def _new_key(self, key: Key) -> None:
        if self.tokens is not None:
            self.tokens.replace(key)
        for pool in self._pools.values():
            pool.retire()

    def _new_certificate(self, _: Pem) -> None:
        tls = self._tls()
        for pool in self._pools.values():
            pool.retire(tls)


def read_key(token: ApnsToken, path: Path) -> Key:
    """Read a .p8 file; raises ValueError, OSError."""
    pem = path.read_bytes()
    if not is_p256(pem):
        raise ValueError("holds no ECDSA P-256 key")
    key_id = token.present_key_id
    if key_id is None:
        raise ValueError("is not named AuthKey_KEYID.p8, nor is what it links to, so its key id is not known")
    return Key(pem.decode("ascii"), key_id)


def read_pem(path: Path) -> Pem:
    """Read a file with a certificate and its key; raises ValueError, OSError."""
    pem = path.read_bytes()
    try:
        certified = read_certificate(pem)
    except (ValueError, IndexError) as error:
        raise ValueError("holds no certificate") from error
    try:
        own = public_key_of(pem)
    except ValueError as error:
        raise ValueError("holds no private key that opens without a password") from error
    if own != certified.public_key:
        raise ValueError("holds a key that is not the certificate's")
    try:
        client_context().load_cert_chain(path, password="")
    except ssl.SSLError as error:
        raise ValueError(f"holds a certificate or key that TLS does not take ({error.reason})") from error
    return Pem(pem)
