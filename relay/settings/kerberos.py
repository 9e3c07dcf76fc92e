"""Checks of the kerberos_* keys of a mail server: the realm, the keytab of the relay, and the keys of invitations."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from eas_watcher.auth.negotiate import DOMAIN, Naming, Service
from relay.security.credentials import CredentialKind
from relay.security.invitations import Invitations, InvitedUsers
from relay.settings.files import Files
from relay.settings.mail_sections import ServerSection
from relay.settings.values import KerberosSettings

MAGIC: Final = b"\x05\x02"  # the start of a keytab: version 2, numbers in network order
REQUIRED: Final = ("kerberos_realm", "kerberos_principal", "kerberos_keytab_file", "kerberos_invitation_key_file")
KEYS: Final = (*REQUIRED, "kerberos_target")
MISSING: Final = "Have an administrator of the directory make them: docs/authentication.md says how."
LIBRARY: Final = "Install libkrb5-dev and gcc, then the extra kerberos: docs/authentication.md says how."
INVITATIONS: Final = "Make the keys with `relay invitations keygen`, and give the public one."


def check_kerberos(
    files: Files, name: str, section: ServerSection, domains: frozenset[str], *, opens: bool
) -> KerberosSettings | None:
    """Return the Kerberos settings of the server `name`; only a role that `opens` credentials reads the keytab."""
    table, faults = f"servers.{name}", files.faults
    given = [key for key in KEYS if getattr(section, key)]
    if CredentialKind.KERBEROS.value not in section.credentials:
        if given and f"{table}.credentials" not in faults:
            wrong = "is set, but credentials does not list kerberos"
            faults.add(f"{table}.{given[0]}", wrong, 'Add "kerberos" to credentials, or remove it.')
        return None
    for key in REQUIRED:
        faults.require(f"{table}.{key}", getattr(section, key), MISSING)
    if opens and find_spec("gssapi") is None:
        faults.add(f"{table}.credentials", "lists kerberos, whose library is not installed", LIBRARY)
    realm, principal, keytab, key_file = (getattr(section, key) or "" for key in REQUIRED)
    if not all((realm, principal, keytab, key_file)):
        return None
    if not DOMAIN.fullmatch(realm):
        faults.add(f"{table}.kerberos_realm", "is no realm", "Write it as the directory does, e.g. EXAMPLE.COM.")
    if "@" not in principal:
        principal = f"{principal}@{realm}"
    service = _service(files, table, principal, section) if opens else None
    invitations = read_invitations(files, f"{table}.kerberos_invitation_key_file", key_file)
    if invitations is None:
        return None
    naming = Naming(realm, domains, addresses=section.kerberos_users == "address")
    return KerberosSettings(InvitedUsers(name, invitations, naming), service)


def _service(files: Files, table: str, principal: str, section: ServerSection) -> Service:
    """Return the account of the relay at the KDC; report a keytab without its key."""
    key, path = f"{table}.kerberos_keytab_file", files.path(section.kerberos_keytab_file or "")
    check_keytab(files, key, path, principal)
    return Service(principal, path, section.kerberos_target or "")


def check_keytab(files: Files, key: str, path: Path, principal: str) -> None:
    """Report a keytab, which the setting `key` names, that lacks the key of a principal."""
    content = files.read(key, path, secret=True)
    if content is not None:
        try:
            found = principals(content)
        except ValueError:
            files.faults.add(key, f"{path} is no keytab", f"Export the keytab of {principal} again.")
        else:
            if principal not in found:
                files.faults.add(key, f"{path} has no key of {principal}", f"Export the keytab of {principal} again.")


def read_invitations(files: Files, key: str, name: str) -> Invitations | None:
    """Return the public keys of a file that the setting `key` names; report one that holds none."""
    path = files.path(name)
    pem = files.read(key, path, secret=False, remedy=INVITATIONS)
    if pem is None:
        return None
    try:
        return Invitations.load(pem)
    except ValueError:
        files.faults.add(key, f"{path} holds no Ed25519 public key", INVITATIONS)
        return None


def principals(content: bytes) -> frozenset[str]:
    """Return the principals whose keys a keytab has, e.g. push-relay@EXAMPLE.COM; raises ValueError for a bad one."""
    if content[:2] != MAGIC:
        raise ValueError("no keytab")
    names, position = set(), 2
    while position + 4 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big", signed=True)
        position += 4
        if size > 0:
            names.add(_principal(content[position : position + size]))
        elif size == 0:
            break
        position += abs(size)  # a negative size: a hole where a key was removed
    return frozenset(names)


def _principal(entry: bytes) -> str:
    """Return the principal at the start of an entry: the number of its components, the realm, the components."""
    count, rest = int.from_bytes(entry[:2], "big"), entry[2:]
    realm, rest = _counted(rest)
    components = []
    for _ in range(count):
        component, rest = _counted(rest)
        components.append(component)
    return f"{'/'.join(components)}@{realm}"


def _counted(octets: bytes) -> tuple[str, bytes]:
    """Return the text at the start of `octets`, which follows its length in two bytes, and the rest."""
    size = int.from_bytes(octets[:2], "big")
    if len(octets) < 2 + size:
        raise ValueError("cut off")
    return octets[2 : 2 + size].decode("utf-8", "replace"), octets[2 + size :]
