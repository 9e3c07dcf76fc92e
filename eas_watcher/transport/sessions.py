"""TLS sessions that later connections resume: less work for both sides, and less memory [RFC 8446 2.2].

A session stands for the certificates that were verified when it began. So it belongs to one TLS context, which knows
whom it trusts and which client certificate it shows, and to one name and port. It is dropped when it is old: a server's
certificate that a CA has withdrawn, or that has expired, must not be trusted for ever.
"""

import ssl
from collections.abc import Callable
from typing import Final

from eas_watcher.transport.target import Endpoint

OLDEST: Final = 3600.0  # seconds after which a server shows its certificate again


class Sessions:
    """The sessions of one TLS context."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Have none yet; `clock` counts seconds."""
        self._clock = clock
        self._sessions: dict[Endpoint, tuple[ssl.SSLSession, float]] = {}

    def get(self, endpoint: Endpoint) -> ssl.SSLSession | None:
        """Return a session to resume; None: the server must show its certificate."""
        session, began = self._sessions.get(endpoint, (None, 0.0))
        if session is not None and self._clock() - began >= OLDEST:
            self.forget(endpoint)
            return None
        return session

    def keep(self, endpoint: Endpoint, tls: ssl.SSLObject) -> None:
        """Keep the session of a connection whose handshake was a full one, once data came over it.

        Before, a session of TLS 1.3 has no ticket: servers send it after the handshake [RFC 8446 4.6.1].
        """
        try:
            session = tls.session
        except ValueError:
            return  # "i2d() failed": OpenSSL cannot copy it yet [observed: OpenSSL 3.0, 2026-11]
        if session is not None and (session.has_ticket or session.id):
            self._sessions[endpoint] = session, self._clock()

    def forget(self, endpoint: Endpoint) -> None:
        """Drop a session that a server may have stumbled over."""
        self._sessions.pop(endpoint, None)
