"""The statements that make the relay's users of PostgreSQL; they hold verifiers instead of passwords; no I/O."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final

ROUNDS: Final = 4096  # as PostgreSQL does by default; the passwords are random, so more would add nothing
DATABASE: Final = "relay"
OWNER: Final = "relay"


def verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL stores for a password of ASCII letters [RFC 5803]: it proves a login and is none."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ROUNDS}:{salt64}${stored64}:{server64}"


def users_sql(passwords: Mapping[str, str], salt: Callable[[], bytes]) -> str:
    """Return the statements that make users, by name, and the database, which belongs to OWNER.

    An administrator of PostgreSQL runs them once, with psql.
    """
    lines = [
        "-- Written by `relay init`: users of PostgreSQL and their database. An administrator runs it once:",
        "-- psql --set ON_ERROR_STOP=1 postgres < users.sql",
        "-- It holds verifiers; the passwords are in the folders of the roles.",
    ]
    lines += [f"CREATE ROLE {user} LOGIN PASSWORD '{verifier(word, salt())}';" for user, word in passwords.items()]
    lines.append(f"CREATE DATABASE {DATABASE} OWNER {OWNER};")
    return "\n".join(lines) + "\n"
