"""Checks of [tracing]: the collector that gets traces, and the headers that it wants."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from relay.domain.model import Role
from relay.domain.traces import Tracing
from relay.network.route import DIRECT, Route
from relay.network.urls import is_loopback, secure_url
from relay.settings.contents import text_misfit
from relay.settings.files import Files
from relay.settings.network import NetworkChecks
from relay.settings.sections import TracingSection
from relay.settings.source import Faults

PATH: Final = "/v1/traces"
"""The path of a collector for traces, where the URL has none [OTLP 1.x: OTLP/HTTP Request]."""
HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*")
"""A header as one line [RFC 9110 5.1, 5.5], in ASCII."""
OWN: Final = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})
"""Headers that the relay writes itself."""
URL: Final = "Write the whole URL, e.g. https://otel.example.com:4318/v1/traces; headers_file is for secrets."
LIBRARY: Final = "Install the extra otel: docs/monitor.md says how, under Traces."
SPANS: Final = frozenset({Role.ALL, Role.WATCH, Role.PUSH})
"""The roles through which mails and pushes go."""


def read_tracing(section: TracingSection, files: Files, role: Role, network: NetworkChecks) -> Tracing | None:
    """Return the collector that gets the traces of a role; None: it makes none.

    `network` has the way of the roles that push; that of the watch role is straight without a proxy of its own.
    """
    faults = files.faults
    if section.endpoint is None:
        for key in ("ca_file", "proxy", "headers_file"):
            if getattr(section, key) is not None and "tracing.endpoint" not in faults:
                faults.add(f"tracing.{key}", "is set, but tracing.endpoint is not", "Set tracing.endpoint too.")
        return None
    if role not in SPANS:
        return None
    endpoint = _endpoint(section.endpoint)
    if endpoint is None:
        faults.add("tracing.endpoint", "is no https:// URL, nor http:// on this host, or has a user in it", URL)
    if not installed():
        faults.add("tracing.endpoint", "is set, and the library for it is not installed", LIBRARY)
    ca_file = files.ca("tracing.ca_file", section.ca_file)
    headers = _headers(files, files.path(section.headers_file)) if section.headers_file is not None else {}
    if endpoint is None:
        return None
    route = _route(endpoint, section, network, files.faults)
    return Tracing(endpoint, ca_file, MappingProxyType(headers), section.sample_ratio, route.proxy, route.sources)


def _route(endpoint: str, section: TracingSection, network: NetworkChecks, faults: Faults) -> Route:
    """Return the way to a collector; one on this host is never behind a proxy."""
    key, route = "tracing.proxy", network.route("tracing.proxy", section.proxy)
    if not is_loopback(urlsplit(endpoint).hostname or ""):
        return route
    if route.proxy is not None and route.proxy.setting == key:
        faults.add(key, "is set, and tracing.endpoint is on this host", "Remove it.")
    return DIRECT


def installed() -> bool:
    """Return whether the extra otel is there."""
    parts = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.exporter.otlp")
    return all(find_spec(part) is not None for part in parts)


def _endpoint(url: str) -> str | None:
    """Return a URL with the path of a collector; None: nothing may be sent there."""
    if not secure_url(url):
        return None
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.fragment:
        return None
    return parts._replace(path=PATH).geturl() if parts.path in {"", "/"} else url


def _headers(files: Files, path: Path) -> Mapping[str, str]:
    """Return the headers of a secret file; no message repeats a line of it."""
    key, headers = "tracing.headers_file", {}
    content = files.read(key, path, secret=True)
    if content is None:
        return {}
    if (misfit := text_misfit(content)) is not None:
        files.faults.add(key, f"{path} {misfit[0]}", misfit[1])
        return {}
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        match = HEADER.fullmatch(line)
        if match is None:
            files.faults.add(key, f"line {number} of {path} is no header", "Write NAME: VALUE, in ASCII.")
        elif match[1].lower() in OWN:
            wrong = f"line {number} of {path} is a header that the relay writes itself"
            files.faults.add(key, wrong, "Remove it.")
        else:
            headers[match[1]] = match[2]
    return headers
