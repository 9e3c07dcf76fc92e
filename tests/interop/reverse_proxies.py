"""Reverse proxies of other projects, from Debian's packages, configured as docs/recipes/reverse-proxies.md says."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.interop.packages import install
from tests.interop.sogo.daemon import Daemon

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "recipes/reverse-proxies.md"
WEB_APP: Final = DOCS / "webapp.md"
WHERE: Final = ("before the API", "before the mail server")


@dataclass(frozen=True, slots=True)
class Setup:
    """What the page calls by other names: ports on 127.0.0.1, and PEM files."""

    api: int
    """Where phones come to the proxy."""
    relay: int
    mail: int
    """Where the relay comes to the proxy."""
    exchange: int
    certificate: Path
    """The certificate that the proxy shows, and its key in the same file."""
    ca: Path
    """The CA of the mail server."""
    web_app: bool = False
    """Whether the web app is published, too."""


def fragment(title: str) -> str:
    """Return the block of code below a heading of the page."""
    _, found, rest = PAGE.read_text(encoding="utf-8").partition(f"\n### {title}\n")
    assert found, f"the page has no heading {title!r}"
    block = re.search(r"^```\w+\n(.*?)^```$", rest.partition("\n### ")[0], re.MULTILINE | re.DOTALL)
    assert block is not None, f"no code stands below {title!r}"
    return block[1]


def adapted(title: str, changes: Mapping[str, str]) -> str:
    """Return the block of code below a heading with other names; each name must stand there."""
    text = fragment(title)
    for name, value in changes.items():
        assert name in text, f"{name!r} does not stand below {title!r}"
        text = text.replace(name, value)
    return text


def published(proxy: str, text: str, setup: Setup) -> str:
    """Return a configuration, with the web app published too if it shall be, as its page says of a proxy."""
    if not setup.web_app:
        return text
    row = re.search(rf"^\| {proxy} \| (.*) \|$", WEB_APP.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None, f"the page of the web app says nothing of {proxy}"
    said = [piece.replace("\\|", "|") for piece in re.findall(r"`([^`]+)`", row[1])]
    match proxy, said:
        case "HAProxy", [rule]:
            now, before = rule, "http-request deny unless { path_beg /v1/ }"
        case "nginx", [now, before]:
            pass
        case "Caddy", [matcher, handle, before]:
            now = f"{matcher}\n    {handle}"
        case _:
            raise AssertionError(f"the page of the web app says {said} of {proxy}")
    assert text.count(before) == 1, f"{before!r} does not stand in the configuration once"
    return text.replace(before, now)


@contextmanager
def running(name: str, setup: Setup) -> Iterator[Daemon]:
    """Run one of the proxies, before the API and before the mail server at once; raises Unavailable."""
    install(name)
    with tempfile.TemporaryDirectory(prefix=name) as made:
        folder = Path(made)
        file, command = _CONFIGURED[name](setup, folder)
        daemon = Daemon(name, lambda _: None, command, folder / f"{name}.out", folder, setup.mail)
        daemon.environment.update({"HOME": made, "XDG_DATA_HOME": made, "XDG_CONFIG_HOME": made})
        assert file.exists()
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


def _nginx(setup: Setup, folder: Path) -> tuple[Path, tuple[str, ...]]:
    certificate = {"/etc/nginx/relay.pem": f"{setup.certificate}", "/etc/nginx/relay.key": f"{setup.certificate}"}
    mail = {name.replace("relay", "mail"): value for name, value in certificate.items()}
    before_api = adapted(
        "nginx, before the API",
        certificate
        | {"listen 443": f"listen 127.0.0.1:{setup.api}", "127.0.0.1:8443": f"127.0.0.1:{setup.relay}"}
        | {"relay.example.com": "localhost"},
    )
    before_mail = adapted(
        "nginx, before the mail server",
        mail
        | {"listen 443": f"listen 127.0.0.1:{setup.mail}", "/etc/nginx/exchange-ca.pem": f"{setup.ca}"}
        | {"exchange.example.com:443": f"127.0.0.1:{setup.exchange}", "exchange.example.com": "localhost"}
        | {"mail.example.com": "localhost"},
    )
    before_api = published("nginx", before_api, setup)
    folders = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\n    access_log off;\n{folders}{before_api}{before_mail}}}\n"
    )
    return file, ("nginx", "-c", str(file))


def _haproxy(setup: Setup, folder: Path) -> tuple[Path, tuple[str, ...]]:
    before_api = adapted(
        "HAProxy, before the API",
        {"bind :443": f"bind 127.0.0.1:{setup.api}", "/etc/haproxy/relay.pem": f"{setup.certificate}"}
        | {"127.0.0.1:8443": f"127.0.0.1:{setup.relay}"},
    )
    before_mail = adapted(
        "HAProxy, before the mail server",
        {"bind :443": f"bind 127.0.0.1:{setup.mail}", "/etc/haproxy/mail.pem": f"{setup.certificate}"}
        | {"exchange.example.com:443": f"127.0.0.1:{setup.exchange}", "/etc/haproxy/exchange-ca.pem": f"{setup.ca}"}
        | {"exchange.example.com": "localhost"},
    )
    file = folder / "haproxy.cfg"
    before_api = published("HAProxy", before_api, setup)
    file.write_text(f"{before_api}\n{before_mail}")
    return file, ("haproxy", "-db", "-f", str(file))


def _caddy(setup: Setup, folder: Path) -> tuple[Path, tuple[str, ...]]:
    before_api = adapted(
        "Caddy, before the API",
        {"relay.example.com": f"https://127.0.0.1:{setup.api}, https://localhost:{setup.api}"}
        | {"127.0.0.1:8443": f"127.0.0.1:{setup.relay}"}
        | {"/etc/caddy/relay.pem": f"{setup.certificate}", "/etc/caddy/relay.key": f"{setup.certificate}"},
    )
    before_mail = adapted(
        "Caddy, before the mail server",
        {"mail.example.com": f"https://localhost:{setup.mail}", "/etc/caddy/exchange-ca.pem": f"{setup.ca}"}
        | {"/etc/caddy/mail.pem": f"{setup.certificate}", "/etc/caddy/mail.key": f"{setup.certificate}"}
        | {"exchange.example.com:443": f"127.0.0.1:{setup.exchange}", "exchange.example.com": "localhost"},
    )
    before_api = published("Caddy", before_api, setup)
    file = folder / "Caddyfile"
    options = "{\n    admin off\n    auto_https disable_redirects\n    default_bind 127.0.0.1\n}\n"
    file.write_text(f"{options}{before_api}{before_mail}")
    return file, ("caddy", "run", "--adapter", "caddyfile", "--config", str(file))


_CONFIGURED: Final = {"nginx": _nginx, "haproxy": _haproxy, "caddy": _caddy}
NAMES: Final = tuple(_CONFIGURED)
