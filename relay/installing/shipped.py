"""The files that an installation comes with, besides its programs: samples to copy, rules for monitoring, grants."""

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from relay.store.privileges import grants_sql

GRANTS: Final = "postgresql-grants.sql"
SAMPLE: Final = "relay.toml"
ABOUT: Final[Mapping[str, str]] = MappingProxyType(
    {
        SAMPLE: "all settings, with their defaults; `relay init` writes one for your roles",
        "relay.service": "the service for systemd",
        "relay.socket": "the API's port, held by systemd while the relay restarts; optional",
        "prometheus-alerts.yml": "alerts for Prometheus",
        "prometheus-scrape.yml": "how Prometheus scrapes the processes, for one installation or several",
        "grafana-dashboard.json": "a dashboard for Grafana",
        "rsyslog-cef.conf": "rsyslog sends what a SIEM wants to know of the log, as CEF",
        "siem-events.sh": "acts of administrators and the verification of audit logs, for syslog",
        "zabbix-template.yaml": "a template for Zabbix 6.0 and newer: items, discovery rules, triggers",
        GRANTS: "the rights of each role's user in PostgreSQL; `relay migrate --grants` sets them, too",
        "mail-gate.cfg": "HAProxy as the only way of the watch role's container to the mail server",
        "LICENSE": "the licence",
    }
)
"""What each file is for, by name."""


def read(name: str) -> str:
    """Return the text of a shipped file; `name` is a key of ABOUT."""
    if name == GRANTS:
        return grants_sql()
    return files("relay.installing").joinpath("sample_files", name).read_text(encoding="utf-8")
