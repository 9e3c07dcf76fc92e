"""The server's side of tickets: GSSAPI with the mail server's keytab, in place of the passwords of the sandbox."""

from collections.abc import Callable
from pathlib import Path

from tests.interop.kerberos.realm import REALM


def acceptor(keytab: Path) -> Callable[[bytes], str | None]:
    """Return a function from a SPNEGO token to its user, as an address of example.com; None for a bad token."""
    import gssapi  # noqa: PLC0415 -- may have been installed only now

    credentials = gssapi.Credentials(usage="accept", store={b"keytab": f"FILE:{keytab}".encode()})

    def user_of(token: bytes) -> str | None:
        context = gssapi.SecurityContext(creds=credentials, usage="accept")
        try:
            context.step(token)
            if not context.complete:  # raises the error that the client has got as an answer
                return None
        except gssapi.exceptions.GSSError:
            return None
        name, _, realm = str(context.initiator_name).partition("@")
        return f"{name}@example.com" if realm == REALM else None

    return user_of
