"""The files of a relay that uses the sandbox: a relay.toml and the keys and certificates that it names."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.domain.subscription import BROWSERS
from relay.push.webpush.vapid import public_key
from relay.sandbox.certificates import Ca, write_secret
from relay.sandbox.place import Place

TEAM: Final = "SANDBOX001"
APP: Final = "com.example.mail"
PROJECT: Final = "sandbox"
DOMAIN: Final = "example.com"
SYSTEM_CAS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Debian, Red Hat, SUSE and others keep the CAs that they trust, if the TLS library names no file."""

_TOML: Final = """\
# Written by `relay sandbox` at each start: a relay on this machine that uses the sandbox.
[relay]
state_dir = "state"

[api]
host = "{host}"
port = {api}
certificate_file = "api.pem"
key_file = "api.pem"
# Apps that run elsewhere do not get the pushes of simulated providers: remove this when yours returns challenges.
prove_possession = []

[ops]
port = {ops}

[servers.sandbox]
url = "https://{reached}:{eas}/Microsoft-Server-ActiveSync"
ca_file = "ca.pem"
domains = ["{domain}"]
return_rate = 1000

[apns]
key_file = "apns.p8"
key_id = "{key_id}"
team_id = "{team}"
topics = ["{app}"]
host = "{address}"
port = {apns}
sandbox_host = "{address}"
sandbox_port = {apns_sandbox}
ca_file = "ca.pem"

[fcm]
service_account_file = "fcm.json"
apps = ["{app}"]
url = "https://{reached}:{fcm}"
ca_file = "ca.pem"

[webpush]
hosts = [{services}]
apps = ["{app}"]
vapid_key_file = "vapid.pem"
public_key = "{vapid}"
subject = "mailto:admin@{domain}"
ca_file = "{push_ca}"

[webapp]
enabled = true
origin = "http://localhost:{web}"
title = "Sandbox mail"
help_text = "This is the sandbox: a simulated mail server on this machine."

[log]
level = "{level}"
format = "{format}"
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of a sandbox and its relay; 0: a free port."""

    eas: int = 0
    apns: int = 0
    fcm: int = 0
    webpush: int = 0
    control: int = 0
    api: int = 0
    ops: int = 0
    apns_sandbox: int = 0
    """APNs' other environment, for builds from Xcode."""
    web: int = 0
    """Where browsers on this machine reach the relay's web app, over plain HTTP."""
    smtp: int = 0
    """The mail server's way in, for the canary."""


@dataclass(frozen=True, slots=True)
class PushAccounts:
    """The keys that Apple and Google issue, and the relay's own VAPID key."""

    apns_key: str
    """PEM text of the .p8 file."""
    apns_key_id: str
    service_account: dict[str, str]
    vapid_key: bytes
    """PEM, as `relay vapid --new` makes it."""


def write_installation(
    folder: Path,
    ca: Ca,
    ports: Ports,
    accounts: PushAccounts,
    *,
    place: Place | None = None,
    level: str = "info",
    log_format: str = "json",
    browsers: bool = False,
) -> Path:
    """Write all files that a relay needs, and return the path of its relay.toml; only the owner can read the keys.

    `place` is where sandbox and relay listen; None: on loopback. With `browsers` the relay pushes to the real push
    services of browsers, too.
    """
    place = place or Place()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    ca.write_ca(folder / "ca.pem")
    services = [f"{place.reached}:{ports.webpush}"]
    if browsers:
        services += BROWSERS
        _write_bundle(folder / "push-ca.pem", folder / "ca.pem")
    write_secret(folder / "api.pem", ca.server_pem(*place.certified))
    write_secret(folder / "apns.p8", accounts.apns_key.encode())
    write_secret(folder / "fcm.json", json.dumps(accounts.service_account, indent=2).encode())
    write_secret(folder / "vapid.pem", accounts.vapid_key)
    toml = folder / "relay.toml"
    toml.write_text(
        _TOML.format(
            api=ports.api,
            ops=ports.ops,
            eas=ports.eas,
            host=place.host,
            address=place.address,
            reached=place.reached,
            apns=ports.apns,
            apns_sandbox=ports.apns_sandbox,
            fcm=ports.fcm,
            services=", ".join(f'"{service}"' for service in services),
            push_ca="push-ca.pem" if browsers else "ca.pem",
            web=ports.web,
            vapid=public_key(accounts.vapid_key),
            key_id=accounts.apns_key_id,
            team=TEAM,
            app=APP,
            domain=DOMAIN,
            level=level,
            format=log_format,
        ),
        encoding="utf-8",
    )
    return toml


def _write_bundle(bundle: Path, ca: Path) -> None:
    """Write the CA of the sandbox and those that this system trusts into one file."""
    found = [Path(name) for name in (ssl.get_default_verify_paths().cafile, *SYSTEM_CAS) if name]
    system = next((path.read_text(encoding="utf-8") for path in found if path.exists()), "")
    bundle.write_text(f"{ca.read_text(encoding='ascii')}{system}", encoding="utf-8")
