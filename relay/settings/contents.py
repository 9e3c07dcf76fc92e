"""Reads the files that settings name, and recognises what they hold instead of what they should."""

import codecs
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from relay.security.secret_files import Access

LARGEST: Final = 4 * 2**20  # bytes; the bundle of all public CAs has a quarter of a megabyte
_PKCS7_DATA: Final = bytes.fromhex("06092A864886F70D010701")  # the object identifier at the start of each PKCS #12 file
_PKCS7_SIGNED: Final = bytes.fromhex("06092A864886F70D010702")  # and of each .p7b file that Windows exports
_DER: Final = (b"\x30\x80", b"\x30\x81", b"\x30\x82", b"\x30\x83")  # how a SEQUENCE of more than 127 bytes begins
_PKCS7: Final = (b"-----BEGIN PKCS7-----", b"-----BEGIN PKCS #7 SIGNED DATA-----")
_HELD: Final = {
    b"-----BEGIN CERTIFICATE REQUEST-----": "a certificate request, which a CA must sign",
    b"-----BEGIN NEW CERTIFICATE REQUEST-----": "a certificate request, which a CA must sign",
    b"PRIVATE KEY-----": "a private key",
    b"-----BEGIN CERTIFICATE-----": "a certificate",
    b"-----BEGIN TRUSTED CERTIFICATE-----": "a certificate",
    b"-----BEGIN PUBLIC KEY-----": "a public key",
    b"-----BEGIN X509 CRL-----": "a list of revoked certificates",
}
"""What a PEM file holds, by its lines."""
_JSON: Final = (
    ("project_info", "google-services.json, which is for the app"),
    ("installed", "the JSON of an OAuth client"),
    ("web", "the JSON of an OAuth client"),
)
_KINDS: Final = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
Misfit = tuple[str, str]
"""What a file is, to follow its name, and what to do about it."""


def read_regular(path: Path) -> tuple[bytes, Access]:
    """Return the bytes of a file and who may read it; raises OSError, also for what is no file or too large for one.

    A pipe is not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(0, "its name has a null byte") from error
    status = os.fstat(descriptor)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise OSError(0, f"it is {_KINDS.get(kind, 'a device')}")
    with os.fdopen(descriptor, "rb") as file:
        access = Access.of(descriptor)
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(0, f"it has more than {LARGEST // 2**20} MiB")
    return content, access


def missing(path: Path) -> bool:
    """Return whether there is surely nothing at a path; what is in a folder that this process may not enter may be."""
    return _finds_nothing(path.stat)


def nothing_at(path: Path) -> bool:
    """Return whether a new file may be made at a path: there is surely nothing, not even a link.

    What a link names may be on a disk that is away. A key that is made instead does not do what the one there did.
    """
    return _finds_nothing(path.lstat)


def _finds_nothing(look: Callable[[], os.stat_result]) -> bool:
    try:
        look()
    except PermissionError:
        return False
    except (OSError, ValueError):
        return True
    return False


def text_misfit(content: bytes) -> Misfit | None:
    """Return why a file of settings or of one secret's text cannot be read; None: it is UTF-8."""
    if _is_utf16(content):
        return "is UTF-16", "Save it as UTF-8."
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        return f"is no text: it has a null byte (line {line})", "Write the file again."
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"is no UTF-8 (line {line})", "Save it as UTF-8: it may be Windows-1252, in which old editors save."
    return None


def pem_misfit(content: bytes, path: Path, *, comments: bool = False) -> Misfit | None:
    """Return what a file is that should be PEM, and how to convert it; None: nothing known is wrong with it.

    `comments` may hold any letters in files of CAs; a key has none.
    """
    if not content.strip():
        return "is empty", "Copy the file again."
    if content.startswith(codecs.BOM_UTF8) or _is_utf16(content):
        name = "UTF-16" if _is_utf16(content) else "UTF-8 with a byte order mark"
        return f"is {name}", "Save it as plain UTF-8 without a byte order mark, or copy the original file again."
    if content.startswith(_DER):
        return _binary(content, path)
    if (misfit := _other_text(content, path)) is not None:
        return misfit
    if not comments and not content.isascii():
        line = next(number for number, text in enumerate(content.split(b"\n"), 1) if not text.isascii())
        return f"holds other letters than ASCII (line {line})", "Keep only the lines from BEGIN to END."
    return None


def but_holds(content: bytes) -> str:
    """Return what a PEM file holds instead of what it should, to follow "holds no ..."; empty: unknown."""
    return next((f", but {name}" for line, name in _HELD.items() if line in content), "")


def is_public(content: bytes) -> bool:
    """Return whether a text is PEM without a private key, so that everybody may read it."""
    return b"-----BEGIN " in content and b"PRIVATE KEY-----" not in content


def not_account(content: bytes, account: Any) -> str:
    """Return what a file is that is no JSON of a service account, to follow "is no ..."; empty: unknown."""
    if isinstance(account, dict):
        return next((f": it is {name}" for key, name in _JSON if key in account), "")
    if b"<plist" in content:
        return ": it is GoogleService-Info.plist, which is for the app"
    if b":APA91" in content:
        return ": it is a legacy server key, which FCM takes no more"
    if b"firebaseConfig" in content:
        return ": it is the configuration of a web app"
    return ""


def damaged(content: bytes) -> bool:
    """Return whether a text without a certificate that can be read has the head of one."""
    return b"-----BEGIN CERTIFICATE-----" in content


def _is_utf16(content: bytes) -> bool:
    """Return whether a text is UTF-16, with a byte order mark or not: then every second byte of ASCII is null."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return [byte == 0 for byte in content[:4]] in ([False, True] * 2, [True, False] * 2)


def _other_text(content: bytes, path: Path) -> Misfit | None:
    """Return what a text is that is no certificate and no open key."""
    if content.lstrip()[:200].lower().startswith((b"<!doctype", b"<html")):
        return "is a web page", "Download the file again, logged in."
    if b"-----BEGIN OPENSSH PRIVATE KEY-----" in content:  # pragma: allowlist secret
        return "is a key of OpenSSH", f"Convert it: `ssh-keygen -p -m PEM -f {path}`."
    if any(line in content for line in _PKCS7):
        new = path.with_suffix(".pem").name
        return "is PKCS #7 (.p7b), no plain PEM", f"Convert it: `openssl pkcs7 -print_certs -in {path} -out {new}`."
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in content or b"Proc-Type: 4,ENCRYPTED" in content:
        new = path.with_suffix(".pem").name
        return "is encrypted with a password", f"Decrypt it: `openssl pkey -in {path} -out plain-{new}`."
    return None


def _binary(content: bytes, path: Path) -> Misfit:
    """Return what a binary file is: PKCS #7 or #12, or a certificate or key as DER."""
    new = path.with_suffix(".pem").name
    if _PKCS7_SIGNED in content[:20]:
        remedy = f"Convert it: `openssl pkcs7 -inform DER -print_certs -in {path} -out {new}`."
        return "is PKCS #7 (.p7b), no plain PEM", remedy
    if path.suffix.lower() in (".p12", ".pfx") or _PKCS7_DATA in content[:80]:
        remedy = f"Convert it: `openssl pkcs12 -in {path} -nodes -out {new}` asks for its password; then `chmod 600`."
        return "is a PKCS #12 file (.p12, .pfx), no PEM", remedy
    remedy = f"Convert it: `openssl x509 -inform DER -in {path} -out {new}`, for a key `openssl pkey` instead of x509."
    return "is a binary file (DER), no PEM", remedy
