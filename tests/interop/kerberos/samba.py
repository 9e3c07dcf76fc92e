"""An Active Directory domain: Samba's domain controller with its KDC only, on loopback and a port of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.interop.kerberos.realm import MAIL, REALM, RELAY, Realm, run, running
from tests.interop.packages import install
from tests.ports import free_port

PACKAGES: Final = ("samba-ad-dc", "samba-ad-provision")
PASSWORD: Final = "Directory-Pass-123"
ADDRESS: Final = "eve.smith@example.com"
"""The login name of eve, whose account has another name."""
USERS: Final = ("ann", "ben", "secret", "locked", "eve")


@contextmanager
def running_domain() -> Iterator[Realm]:
    """Run a domain whose relay may act for its users at the mail server; raises Unavailable."""
    install(*PACKAGES)
    with running(_provision, {}) as realm:
        yield realm


def _provision(folder: Path, port: int) -> Sequence[str]:
    """Make the domain and its accounts as docs/authentication.md says."""
    options = {
        "interfaces": "lo",
        "bind interfaces only": "yes",
        "server services": "kdc",
        "krb5 port": str(port),
        "kpasswd port": str(free_port()),
        "pid directory": str(folder),
        "ncalrpc dir": str(folder / "ncalrpc"),
        "cache directory": str(folder / "cache"),
        "log file": str(folder / "samba.log"),
    }
    names = ("--realm", REALM, "--domain", "EXAMPLE", "--host-name", "dc", "--host-ip", "127.0.0.1")
    run(
        (
            *("samba-tool", "domain", "provision", "--server-role=dc", "--dns-backend=NONE", *names),
            *("--adminpass", PASSWORD, "--targetdir", str(folder)),
            *(f"--option={name}={value}" for name, value in options.items()),
        )
    )
    for name in ("ncalrpc", "cache"):
        (folder / name).mkdir(exist_ok=True)
    settings = f"--configfile={folder}/etc/smb.conf"

    def administer(*command: str) -> None:
        run(("samba-tool", *command, "-H", f"{folder}/private/sam.ldb", settings))

    for user in (*USERS, "mail", "push-relay"):
        address = ("--use-username-as-cn",) if user != "eve" else ("--mail-address", ADDRESS)
        administer("user", "create", user, PASSWORD, *address)
    administer("user", "rename", "eve", "--upn", ADDRESS)
    administer("user", "sensitive", "secret", "on")
    administer("user", "disable", "locked")
    administer("spn", "add", "HTTP/mail.example.com", "mail")
    administer("spn", "add", "HTTP/closed.example.com", "mail")
    administer("spn", "add", "push-relay/relay.example.com", "push-relay")
    administer("delegation", "for-any-protocol", "push-relay", "on")
    administer("delegation", "add-service", "push-relay", "HTTP/mail.example.com")
    for name, principal in (("relay", RELAY), ("mail", MAIL)):
        run(("samba-tool", "domain", "exportkeytab", f"{folder}/{name}.keytab", f"--principal={principal}", settings))
    return ("samba", "--interactive", "--model=single", "--debug-stdout", settings)
