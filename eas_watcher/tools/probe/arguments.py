"""The command line of the probe: the server, the user, and a password that is never an argument.

Exit statuses: 0 the relay would work with the server, 1 it would not, 2 the arguments are wrong.
"""

import argparse
import asyncio
import os
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from getpass import getpass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Final, NoReturn, TextIO
from urllib.parse import urlsplit

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.negotiate import KerberosCredential, Service
from eas_watcher.autodiscover.urls import EAS_PATH
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.errors import EasError
from eas_watcher.heartbeat import LONGEST
from eas_watcher.names import MailboxId
from eas_watcher.ports import Transport
from eas_watcher.proxy.proxy import NoProxy, Proxy, proxy_at
from eas_watcher.runtime.account import Account
from eas_watcher.server.admissions import Admissions
from eas_watcher.tools.probe.device import ProbeDevice, probe_device
from eas_watcher.tools.probe.finding import Finding, works
from eas_watcher.tools.probe.steps import Probe
from eas_watcher.transport.http import open_transport
from eas_watcher.transport.negotiate import NegotiateTransport
from eas_watcher.transport.tls import client_context
from eas_watcher.transport.tls_probe import Handshake, shake_hands

PASSWORD: Final = "EAS_WATCHER_PASSWORD"
"""The environment variable that may hold the password."""
HTTPS: Final = 443
PROGRAM: Final = "python -m eas_watcher"
WORKS, FAILS, FAULTY = 0, 1, 2


class ArgumentsFaulty(Exception):
    """The command line asks for something that cannot be done; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be probed, and how."""

    url: str
    credential: BasicCredential | KerberosCredential
    """Kerberos: the tickets of the user who ran `kinit`."""
    tls: ssl.SSLContext = field(repr=False)
    acknowledgement: Acknowledgement
    patience: float
    """Seconds to wait for the answer to a Ping."""
    target: str = ""
    """The server's Kerberos principal; empty: the one of its host."""
    strict: ssl.SSLContext | None = field(default=None, repr=False)
    """Checks the form of certificates too, as newer software does; None: not checked."""
    proxy: Proxy | None = None
    """The proxy on the way to the server; None: no proxy."""

    @property
    def kerberos(self) -> bool:
        """True if the probe shows tickets instead of a password."""
        return isinstance(self.credential, KerberosCredential)

    @property
    def host(self) -> str:
        """The host to connect to."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port to connect to."""
        return urlsplit(self.url).port or HTTPS


def main(
    arguments: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    ask: Callable[[str], str] = getpass,
    out: TextIO | None = None,
    program: str = PROGRAM,
) -> int:
    """Run the program and return its exit status; `program` is what its help calls it."""
    try:
        order = read_order(arguments, environ, ask, program)
    except ArgumentsFaulty as fault:
        sys.stderr.write(f"{fault}\n")
        return FAULTY
    to = out or sys.stdout

    def show(finding: Finding) -> None:
        to.write(f"{finding.line()}\n")
        to.flush()

    findings = asyncio.run(run_probe(order, show))
    good = works(findings)
    to.write(f"\nThe relay {'would' if good else 'would NOT'} work with this server and user.\n")
    return WORKS if good else FAILS


async def run_probe(order: Order, show: Callable[[Finding], None]) -> list[Finding]:
    """Take all steps; show each finding when it comes, and return all of them."""
    credential = order.credential
    device_id = probe_device(order.url, credential.user)
    account = Account(MailboxId("probe"), order.url, credential.user, device_id, credential)

    async def shake() -> Handshake:
        return await shake_hands(order.host, order.port, order.tls, order.strict, order.proxy)

    findings = []
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(open_transport(order.tls, reuse=False, proxy=order.proxy))
        transport = _show_tickets(order, plain, stack) if order.kerberos else plain
        device = ProbeDevice(account, transport, Admissions(1, Random(), _now))  # noqa: S311 -- spreads waits
        probe = Probe(device, plain, shake, _now, order.acknowledgement, order.patience)
        async for finding in probe.run():
            show(finding)
            findings.append(finding)
    return findings


def _show_tickets(order: Order, single_use: Transport, stack: AsyncExitStack) -> Transport:
    """Return a transport that adds a ticket of the user who ran `kinit` to each request."""
    from eas_watcher.transport.kerberos import Kerberos  # noqa: PLC0415 -- needs the optional extra

    kerberos = Kerberos(Service(target=order.target))
    stack.callback(kerberos.close)
    return NegotiateTransport(single_use, kerberos.tickets(None))


def read_order(
    arguments: Sequence[str], environ: Mapping[str, str], ask: Callable[[str], str], program: str = PROGRAM
) -> Order:
    """Read the command line, and the password from where it says.

    Raises ArgumentsFaulty, and SystemExit for --help.
    """
    given = _parser(program).parse_args(arguments)
    if not 0 < given.patience <= LONGEST:
        raise ArgumentsFaulty(f"--patience takes seconds, at most {LONGEST}")
    url = _read_url(given.url)
    try:
        return Order(
            url,
            _read_credential(given, environ, ask),
            client_context(given.ca_file),
            Acknowledgement(given.acknowledge),
            given.patience,
            given.target,
            client_context(given.ca_file, strict=True),
            _read_proxy(given),
        )
    except EasError as fault:
        raise ArgumentsFaulty(str(fault)) from fault
    except OSError as fault:  # SSLError is a subclass
        raise ArgumentsFaulty(f"{given.ca_file}: {fault.strerror or 'not a file of certificates'}") from fault


def _read_credential(
    given: argparse.Namespace, environ: Mapping[str, str], ask: Callable[[str], str]
) -> BasicCredential | KerberosCredential:
    if not given.kerberos:
        password = _read_password(given.password_file, environ, lambda: ask(f"Password of {given.user}: "))
        return BasicCredential(given.user, password)
    if given.password_file is not None:
        raise ArgumentsFaulty("--kerberos takes no password: give one of the two")
    if find_spec("gssapi") is None:
        raise ArgumentsFaulty("--kerberos needs the optional extra: docs/authentication.md says how to install it")
    return KerberosCredential(given.user, "")


def _read_proxy(given: argparse.Namespace) -> Proxy | None:
    if given.proxy is None:
        if given.proxy_user or given.proxy_password_file or given.proxy_ca_file:
            raise ArgumentsFaulty("--proxy-user, --proxy-password-file and --proxy-ca-file belong to --proxy")
        return None
    try:
        proxy = proxy_at(given.proxy, "--proxy")
    except NoProxy as fault:
        raise ArgumentsFaulty(f"--proxy {fault}: write http://HOST:PORT or socks5h://HOST:PORT") from fault
    if bool(given.proxy_user) != (given.proxy_password_file is not None):
        raise ArgumentsFaulty("--proxy-user and --proxy-password-file belong together: give both, or neither")
    password = "" if given.proxy_password_file is None else _first_line(given.proxy_password_file)
    if given.proxy_ca_file is not None:
        try:
            client_context(given.proxy_ca_file)
        except OSError as fault:  # SSLError is a subclass
            raise ArgumentsFaulty(f"{given.proxy_ca_file}: {fault.strerror or 'not a file of certificates'}") from fault
    return replace(proxy, user=given.proxy_user, password=password, ca_file=given.proxy_ca_file)


def _read_url(text: str) -> str:
    """Return the ActiveSync URL, completed if it is only a host.

    Raises ArgumentsFaulty for a URL that a password must not be sent to.
    """
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        sound = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.username is not None or parts.query or parts.fragment:
        raise ArgumentsFaulty("--url takes an https URL without user, query and fragment")
    return parts._replace(path=parts.path.rstrip("/") or EAS_PATH).geturl()


def _read_password(file: Path | None, environ: Mapping[str, str], ask: Callable[[], str]) -> str:
    if file is not None:
        return _first_line(file)
    if PASSWORD in environ:
        return environ[PASSWORD]
    try:
        return ask()
    except (EOFError, KeyboardInterrupt) as fault:
        raise ArgumentsFaulty(f"no password: give --password-file or {PASSWORD}") from fault


def _first_line(file: Path) -> str:
    try:
        # Editors of Windows begin a file with a mark and end its line with two characters: neither is typed.
        password = file.read_text(encoding="utf-8-sig").partition("\n")[0].removesuffix("\r")
    except (OSError, UnicodeDecodeError) as fault:
        raise ArgumentsFaulty(f"{file}: the password cannot be read") from fault
    if not password:
        raise ArgumentsFaulty(f"{file}: its first line is empty; the password belongs there")
    return password


class _Parser(argparse.ArgumentParser):
    """Raises ArgumentsFaulty instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentsFaulty(f"{message}; see --help")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=program, description="Look at an Exchange ActiveSync server.")
    parser.add_argument("--version", action="version", version=f"eas_watcher {version('push-relay')}")
    commands = parser.add_subparsers(dest="command", required=True)
    probe = commands.add_parser(
        "probe",
        help="tell what a server offers, and whether the relay would work with it",
        description="Tell what a server offers, one line for each step. Nothing in the mailbox is changed.",
        epilog=f"The password comes from --password-file, else from {PASSWORD}, else you are asked for it.",
    )
    probe.add_argument("--url", required=True, help="the server's host or ActiveSync URL")
    probe.add_argument("--user", required=True, help="the login name, as the server wants it")
    probe.add_argument("--password-file", type=Path, help="a file whose first line is the password")
    probe.add_argument(
        "--kerberos", action="store_true", help="show the ticket of the user who ran `kinit`, who must be that user"
    )
    probe.add_argument(
        "--target", default="", help="with --kerberos: the server's principal, if not HTTP/ and its host"
    )
    probe.add_argument("--ca-file", type=Path, help="certificates to trust instead of the system's, as PEM")
    probe.add_argument(
        "--proxy", help="proxy on the way: http://HOST:PORT, https://, socks5://, or socks5h:// (it looks names up)"
    )
    probe.add_argument("--proxy-user", default="", help="the user at the proxy")
    probe.add_argument("--proxy-password-file", type=Path, help="a file whose first line is that user's password")
    probe.add_argument("--proxy-ca-file", type=Path, help="certificates to trust for an https:// proxy itself, as PEM")
    probe.add_argument(
        "--acknowledge",
        type=int,
        choices=[each.value for each in Acknowledgement],
        default=Acknowledgement.THIRD_PARTY.value,
        help="what is said of the server's policy [MS-ASPROV 2.2.2.54.1]",
    )
    probe.add_argument("--patience", type=float, default=15.0, help="seconds to wait for the answer to a Ping")
    return parser


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 -- the only clock of the program; all other code gets it as an argument
