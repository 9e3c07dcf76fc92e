"""A plain KDC: MIT's krb5kdc with its own database, which knows no delegation to other services."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.interop.kerberos.realm import MAIL, PROXY, REALM, RELAY, Realm, run, running
from tests.interop.packages import install

PACKAGES: Final = ("krb5-kdc", "krb5-admin-server")

_KDC_CONF: Final = """\
[realms]
{realm} = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  acl_file = {folder}/acl
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
}}
[logging]
kdc = FILE:{folder}/krb5kdc.log
"""


@contextmanager
def running_kdc() -> Iterator[Realm]:
    """Run a KDC with ann, the relay, the mail server and a proxy; each has a keytab. Raises Unavailable."""
    install(*PACKAGES)
    environment: dict[str, str] = {}

    def make(folder: Path, port: int) -> Sequence[str]:
        environment["KRB5_KDC_PROFILE"] = str(folder / "kdc.conf")
        environment["KRB5_CONFIG"] = str(folder / "krb5.conf")
        (folder / "kdc.conf").write_text(_KDC_CONF.format(realm=REALM, folder=folder, port=port))
        (folder / "krb5.conf").write_text(f"[libdefaults]\ndefault_realm = {REALM}\n")
        run(("kdb5_util", "create", "-s", "-r", REALM, "-P", "master-password"), environment)
        for name, principal in (("ann", f"ann@{REALM}"), ("relay", RELAY), ("mail", MAIL), ("proxy", PROXY)):
            flags = "+ok_to_auth_as_delegate " if name == "relay" else ""
            run(("kadmin.local", "-q", f"addprinc -randkey {flags}{principal}"), environment)
            run(("kadmin.local", "-q", f"ktadd -k {folder}/{name}.keytab {principal}"), environment)
        return ("krb5kdc", "-n", "-r", REALM)

    with running(make, environment) as realm:
        yield realm
