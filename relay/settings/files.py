"""Checks of the files that relay.toml names: readable, closed to others if secret, and of the right content."""

import json
import re
import ssl
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from eas_watcher.transport.tls import HANDSHAKES, client_context
from relay.network.urls import secure_url
from relay.security.certificates import (
    ca_flaws,
    is_p256,
    lone_issuer,
    public_key_of,
    public_keys,
    read_certificate,
    read_rsa_key,
)
from relay.security.secret_files import Process, unreadable
from relay.settings.contents import (
    but_holds,
    damaged,
    is_public,
    missing,
    not_account,
    nothing_at,
    pem_misfit,
    read_regular,
    text_misfit,
)
from relay.settings.source import Faults

SERVICE_ACCOUNT_FIELDS: Final = ("project_id", "client_email", "private_key", "token_uri")
RENEW_CA: Final = "The relay accepts it; have the CA renewed with these extensions before other software meets it."
INTACT: Final = "Copy the file again: each part of it has several lines, from BEGIN to END, none indented or cut."
LONGEST_NAME: Final = 100  # characters of the name of a file that a message shows
_KEY: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Z])(?=.*[a-z])[A-Za-z0-9+=_-]{24,}")
EGRESS_KEYS: Final = re.compile(rb"\s*(?:[0-9a-fA-F]{64}\s+)*[0-9a-fA-F]{64}\s*", re.ASCII)
CREDENTIAL: Final = "credential:"
"""What begins the name of a credential in a setting that otherwise names a file [systemd.exec(5): LoadCredential=]."""
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""The variable that names their folder."""
NOWHERE: Final = Path("/proc/self/no-credentials")
"""Their folder in a process that has none; no file can be there."""


def credentials_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of systemd's credentials, NOWHERE if there are none."""
    return Path(environ.get(CREDENTIALS) or NOWHERE)


@dataclass(frozen=True, slots=True)
class Files:
    """Reads the files that settings name, and reports their faults under the keys that name them."""

    folder: Path
    """The folder of relay.toml, where relative paths start."""
    faults: Faults
    now: datetime
    contents: dict[str, dict[Path, bytes]] = field(default_factory=dict, repr=False)
    """A digest of each file that was read, by the key that names it and by its path."""
    credentials: Path = NOWHERE
    """The folder of the credentials that systemd passes to this process."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables of this process."""

    def path(self, name: str) -> Path:
        """Return the absolute path of what a setting names: a file, or one of systemd's credentials."""
        if name.startswith(CREDENTIAL):
            return self.credentials / name.removeprefix(CREDENTIAL).lstrip("/")
        return (self.folder / name).absolute()

    def read(self, key: str, path: Path, *, secret: bool, remedy: str = "") -> bytes | None:
        """Return a file's bytes, or None if it cannot be read; report a secret file that others may read.

        `remedy` is for a file that is missing.
        """
        if path.is_relative_to(NOWHERE):
            wrong = "names a credential of systemd, and this process was started without any"
            remedy = f"Add LoadCredential={path.name}:FILE to the unit; see docs/install.md for commands."
            self.faults.add(key, wrong, remedy)
            return None
        try:
            content, access = read_regular(path)
        except OSError as error:
            name = str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)
            hidden = missing(path) and _looks_like_a_secret(name)
            wrong = f"{'what it names' if hidden else path} cannot be read: {error.strerror}"
            if isinstance(error, PermissionError) and not hidden:
                remedy = unreadable(path, Process.present())
            self.faults.add(key, wrong, remedy or "Correct the path or its rights.")
            return None
        self.contents.setdefault(key, {})[path] = blake2b(content, digest_size=16).digest()
        process = Process.present()
        if secret and not is_public(content) and (fault := access.fault(process)) is not None:
            self.faults.add(key, f"{path} {fault}", access.remedy(path, process))
        return content

    def pem(self, key: str, path: Path, *, secret: bool, remedy: str = "", comments: bool = False) -> bytes | None:
        """Return a file that should be PEM, or None if it is something else, which is reported."""
        content = self.read(key, path, secret=secret, remedy=remedy)
        misfit = None if content is None else pem_misfit(content, path, comments=comments)
        if misfit is not None:
            self.faults.add(key, f"{path} {misfit[0]}", misfit[1])
            return None
        return content

    def ca(self, key: str, name: str | None) -> Path | None:
        """Check a file of CA certificates; return its absolute path, or None if none is named."""
        if name is None:
            return None
        path = self.path(name)
        pem = self.pem(key, path, secret=False, comments=True)
        if pem is not None:
            try:
                client_context(path)
            except (ssl.SSLError, OSError, ValueError):
                self._no_certificate(key, path, pem)
            else:
                for flaw in ca_flaws(pem):
                    self.faults.warn(key, f"{path} holds a CA that newer software refuses: {flaw}", RENEW_CA)
        return path

    def certificate(self, key: str, path: Path, key_of: str, key_path: Path) -> None:
        """Check a certificate and its key, which may be in the same file, and that they belong together."""
        together = path == key_path
        pem = self.pem(key, path, secret=together)
        key_pem = pem if together else self.pem(key_of, key_path, secret=True)
        certified = self._certified(key, path, pem) if pem is not None else None
        try:
            own = public_key_of(key_pem) if key_pem is not None else None
        except ValueError:
            held = but_holds(key_pem or b"") if is_public(key_pem or b"") else ""
            wrong = f"{key_path} holds no private key that opens without a password{held}"
            self.faults.add(key_of, wrong, "Give the certificate's key as unencrypted PEM.")
            return
        if certified is None or own is None or pem is None:
            return
        if certified != own and own in public_keys(pem):
            wrong = f"{path} begins with another certificate than the one of {key_of}"
            self.faults.add(key, wrong, "Put the server's own certificate first, then the CAs above it.")
        elif certified != own:
            self.faults.add(
                key_of, f"{key_path} is not the key of {path}", "Give the key the certificate was made for."
            )
        elif self._is_served(key, path, key_of, key_path) and (issuer := lone_issuer(pem)) is not None:
            wrong = f"{path} holds one certificate and not the CA that issued it, {issuer}"
            self.faults.warn(key, wrong, "Add the certificates of the CAs below the root: phones may not know them.")

    def _is_served(self, key: str, path: Path, key_of: str, key_path: Path) -> bool:
        """Return whether OpenSSL, which serves them, takes a certificate and its key; report it if not.

        It reads less than the library that compared the two: no indented line, no line that ends with CR alone.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key_path, password="")
        except ssl.SSLError as error:
            if (remedy := HANDSHAKES.get(error.reason or "")) is not None:
                self.faults.add(key, f"{path} cannot be used: {error.reason}", f"{remedy[:1].upper()}{remedy[1:]}.")
            elif _reads_chain(path):
                self.faults.add(key_of, f"{key_path} holds a key that is damaged", INTACT)
            else:
                self.faults.add(key, f"{path} holds a certificate that is damaged", INTACT)
            return False
        return True

    def _no_certificate(self, key: str, path: Path, pem: bytes) -> None:
        """Report a PEM file without a certificate, or with one that cannot be read."""
        if damaged(pem):
            self.faults.add(key, f"{path} holds a certificate that is damaged", INTACT)
        else:
            remedy = "Give a PEM file that begins with BEGIN CERTIFICATE."
            self.faults.add(key, f"{path} holds no certificate{but_holds(pem)}", remedy)

    def _certified(self, key: str, path: Path, pem: bytes) -> bytes | None:
        """Check the validity of a certificate; return its public key as DER."""
        try:
            certificate = read_certificate(pem)
        except ValueError:
            self._no_certificate(key, path, pem)
            return None
        if certificate.valid_until <= self.now:
            self.faults.add(
                key,
                f"{path} expired on {certificate.valid_until:%Y-%m-%d}",
                "Renew it, unless the clock of this host is ahead.",
            )
        elif certificate.valid_from > self.now:
            wrong = f"{path} is valid only from {certificate.valid_from:%Y-%m-%d %H:%M} UTC on"
            self.faults.add(key, wrong, "Check the clock of this host, which may be behind.")
        return certificate.public_key

    def apns_key(self, key: str, path: Path) -> bool:
        """Return whether a file is a .p8 key; report it if not."""
        pem = self.pem(key, path, secret=True)
        if pem is None:
            return False
        if not is_p256(pem):
            remedy = "Download the key from Apple's developer site again; it is offered only once, else make a new one."
            held = but_holds(pem) if is_public(pem) else ""
            self.faults.add(key, f"{path} holds no ECDSA P-256 key{held}", remedy)
            return False
        return True

    def vapid_key(self, key: str, path: Path, remedy: str) -> bytes | None:
        """Return the key that identifies the relay to push services, as PEM; None if the file holds none."""
        pem = self.pem(key, path, secret=True, remedy=remedy)
        if pem is None:
            return None
        if not is_p256(pem):
            self.faults.add(key, f"{path} holds no ECDSA P-256 key", remedy)
            return None
        return pem

    def egress_keys(self, key: str, path: Path) -> Path:
        """Return the file of the egress log's keys; check it if it is there, for the push role makes it."""
        content = self.read(key, path, secret=True) if not nothing_at(path) else None
        if content is not None and not EGRESS_KEYS.fullmatch(content):
            remedy = "Put the keys back, one a line, 64 hex digits: they prove that no line of the log was removed."
            self.faults.add(key, f"{path} holds no keys of an egress log", remedy)
        return path

    def service_account(self, key: str, path: Path) -> str | None:
        """Check the JSON key of a Google service account; return the project that it names, None if it cannot."""
        content = self.read(key, path, secret=True)
        if content is None:
            return None
        remedy = "Make a new key for the service account in the Firebase console and give its JSON file."
        if (misfit := pem_misfit(content, path, comments=True)) is not None and not content.startswith(BOM_UTF8):
            self.faults.add(key, f"{path} {misfit[0]}", misfit[1] if content.strip() else remedy)
            return None
        try:
            account: Any = json.loads(content)
        except (ValueError, RecursionError):
            account = None
        if not isinstance(account, dict) or account.get("type") != "service_account":
            self.faults.add(key, f"{path} is no service account's JSON{not_account(content, account)}", remedy)
            return None
        missing = [
            name for name in SERVICE_ACCOUNT_FIELDS if not isinstance(account.get(name), str) or not account[name]
        ]
        if missing:
            self.faults.add(key, f"{path} lacks {', '.join(missing)}", remedy)
            return None
        try:
            read_rsa_key(account["private_key"].encode())
        except ValueError:
            self.faults.add(key, f"{path} holds no usable private_key: it must be an RSA key", remedy)
        if not secure_url(account["token_uri"]):
            self.faults.add(key, f"{path} has a token_uri that is not https", remedy)
        return str(account["project_id"])

    def password(self, key: str, path: Path) -> str | None:
        """Return the first line of a file; None if it cannot be read or is empty."""
        content = self.read(key, path, secret=True)
        if content is None:
            return None
        if (misfit := text_misfit(content)) is not None:
            self.faults.add(key, f"{path} {misfit[0]}", misfit[1])
            return None
        lines = content.decode("utf-8-sig").splitlines()
        if not lines or not lines[0]:
            self.faults.add(key, f"{path} is empty", "Write the password into its first line.")
            return None
        return lines[0]


def _reads_chain(path: Path) -> bool:
    """Return whether OpenSSL reads all certificates of a file."""
    try:
        client_context(path)
    except ssl.SSLError:
        return False
    return True


def _looks_like_a_secret(name: str) -> bool:
    """Return whether what should name a file may be the secret itself, which no message may repeat."""
    words = name.split("/")
    return len(name) > LONGEST_NAME or (len(words) == 1 and "." not in name) or any(map(_KEY.fullmatch, words))
