"""Checks of the keys proxy and proxy_... of a table: the proxy, and who the relay is there."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from eas_watcher.proxy.proxy import NoProxy, Proxy, proxy_at
from eas_watcher.proxy.refusals import Refusals
from eas_watcher.proxy.socks5 import LONGEST
from relay.http.addresses import read_address
from relay.settings.files import Files
from relay.settings.kerberos import check_keytab
from relay.settings.section import ProxySection
from relay.settings.source import Faults

NONE: Final = "none"
"""The value of a proxy that means: connect without a proxy."""
BELONGING: Final = ("proxy_user", "proxy_password_file", "proxy_keytab_file", "proxy_ca_file")


def read_proxy(key: str, url: str, faults: Faults) -> Proxy | None:
    """Return the proxy at a URL that the setting `key` has, without a user; None for none, and for a faulty URL."""
    if url.lower() == NONE:
        return None
    try:
        return proxy_at(url, key)
    except NoProxy as error:
        faults.add(key, str(error), 'Write http://HOST:PORT, socks5h://HOST:PORT, or "none".')
        return None


class ProxyChecks:
    """Checks the proxies of all tables; faults go to `files.faults`."""

    def __init__(self, files: Files) -> None:
        """Know no proxy yet."""
        self._files = files
        self._refusals: dict[tuple[str, int, str, str], Refusals] = {}
        """By proxy and credential: what one table learns of a refused one holds for all."""

    def check(self, table: str, section: ProxySection, *, opens: bool = True) -> Proxy | None:
        """Return the proxy of a table; only a role that `opens` connections through it reads its files.

        Other roles get None.
        """
        key, faults = f"{table}.proxy", self._files.faults
        given = [name for name in BELONGING if getattr(section, name)]
        negotiates = section.proxy_auth == "negotiate"
        if section.proxy is None or section.proxy.lower() == NONE:
            if negotiates:
                given.append("proxy_auth")
            for name in given if key not in faults else ():
                faults.add(f"{table}.{name}", f"is set, but {key} is not", f"Set {key} too.")
            return None
        proxy = read_proxy(key, section.proxy, faults)
        if negotiates:
            _check_negotiate(table, section, proxy, faults, opens=opens)
        else:
            _check_basic(table, section, faults)
        if not opens:
            return None
        user, password, keytab = section.proxy_user or "", self._password(table, section), None
        if proxy is not None and proxy.speaks != "http":
            _check_lengths(table, user, password, faults)
        if negotiates and user and section.proxy_keytab_file is not None:
            keytab = self._files.path(section.proxy_keytab_file)
            check_keytab(self._files, f"{key}_keytab_file", keytab, user)
        ca_file = self._ca(table, section, proxy)
        if proxy is None:
            return None
        refusals = self._refusals.setdefault((proxy.host, proxy.port, user, password), Refusals())
        found = replace(proxy, user=user, password=password, ca_file=ca_file, refusals=refusals)
        return replace(found, negotiates=negotiates, keytab=keytab)

    def _password(self, table: str, section: ProxySection) -> str:
        if section.proxy_password_file is None:
            return ""
        key, path = f"{table}.proxy_password_file", self._files.path(section.proxy_password_file)
        return self._files.password(key, path) or ""

    def _ca(self, table: str, section: ProxySection, proxy: Proxy | None) -> Path | None:
        key = f"{table}.proxy_ca_file"
        if section.proxy_ca_file is not None and proxy is not None and not proxy.tls:
            remedy = "Remove it: the CA of a proxy that opens TLS belongs into the ca_file of what is behind it."
            self._files.faults.add(key, f"is set, but {table}.proxy is no https:// URL", remedy)
        return self._files.ca(key, section.proxy_ca_file)


def _check_basic(table: str, section: ProxySection, faults: Faults) -> None:
    user = section.proxy_user or ""
    if ":" in user or not user.isprintable():
        # [RFC 7617 2]: the proxy takes the first colon for the end of the user.
        wrong = "holds a colon or a control character"
        faults.add(f"{table}.proxy_user", wrong, "Give the user alone; the password is a file.")
    if bool(user) != (section.proxy_password_file is not None):
        missing = f"{table}.proxy_password_file" if user else f"{table}.proxy_user"
        remedy = f"Set {table}.proxy_user and {table}.proxy_password_file both, or neither."
        faults.require(missing, None, remedy)
    if section.proxy_keytab_file is not None:
        remedy = 'Set proxy_auth = "negotiate" beside it, or remove it.'
        faults.add(f"{table}.proxy_keytab_file", f"is set, but {table}.proxy_auth is basic", remedy)


def _check_negotiate(table: str, section: ProxySection, proxy: Proxy | None, faults: Faults, *, opens: bool) -> None:
    key = f"{table}.proxy_auth"
    if proxy is not None and proxy.speaks != "http":
        faults.add(key, "is negotiate, which SOCKS5 proxies are not spoken to with", "Use proxy_user and a password.")
    if proxy is not None and read_address(proxy.host) is not None:
        remedy = "Write the name by which the KDC knows it: tickets are for HTTP/NAME."
        faults.warn(key, "is negotiate, but the proxy has an address and no name", remedy)
    if opens and find_spec("gssapi") is None:
        remedy = "Install libkrb5-dev and gcc, then the extra kerberos: docs/authentication.md says how."
        faults.add(key, "is negotiate, whose library is not installed", remedy)
    if section.proxy_password_file is not None:
        remedy = "Remove it: tickets take the place of the password."
        faults.add(f"{table}.proxy_password_file", f"is set, but {key} is negotiate", remedy)
    if section.proxy_user is None:
        if section.proxy_keytab_file is not None:
            faults.require(f"{table}.proxy_user", None, "Set it to the principal whose key the keytab has.")
    elif "@" not in section.proxy_user:
        remedy = "Write it with its realm, e.g. push-relay@EXAMPLE.COM."
        faults.add(f"{table}.proxy_user", "names no realm", remedy)


def _check_lengths(table: str, user: str, password: str, faults: Faults) -> None:
    for name, value in (("proxy_user", user), ("proxy_password_file", password)):
        if len(value.encode()) > LONGEST:
            remedy = f"SOCKS5 takes {LONGEST} bytes at most [RFC 1929]: choose a shorter one."
            faults.add(f"{table}.{name}", "is too long for a SOCKS5 proxy", remedy)
