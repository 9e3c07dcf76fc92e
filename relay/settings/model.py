"""Own which tables and keys relay.toml knows; nothing here reads a file."""

from typing import Any, Final

from relay.settings.sections import (
    ApiSection,
    ApnsAccountSection,
    ApnsSection,
    AutodiscoverSection,
    DatabaseSection,
    EgressSection,
    FcmSection,
    LogSection,
    NetworkSection,
    OpsSection,
    PushSection,
    RelaySection,
    SealingSection,
    Section,
    ServerSection,
    WebPushSection,
)

SECTIONS: Final[dict[str, type[Section]]] = {
    "relay": RelaySection,
    "database": DatabaseSection,
    "sealing": SealingSection,
    "api": ApiSection,
    "ops": OpsSection,
    "servers": ServerSection,
    "autodiscover": AutodiscoverSection,
    "apns": ApnsSection,
    "fcm": FcmSection,
    "network": NetworkSection,
    "push": PushSection,
    "webpush": WebPushSection,
    "egress": EgressSection,
    "log": LogSection,
}
"""The tables of relay.toml; `servers` holds one such table per server name."""

NAMED: Final[dict[str, type[Section]]] = {"servers": ServerSection, "apns.accounts": ApnsAccountSection}
"""The tables that hold one table for each name an operator chooses."""


def known_keys() -> dict[str, tuple[Any, str]]:
    """List every key, e.g. "api.port" and "servers.NAME.url", with its default and its meaning."""
    keys: dict[str, tuple[Any, str]] = {}
    for table, section in SECTIONS.items():
        for where, fields in (table, section), (f"{table}.accounts", NAMED.get(f"{table}.accounts")):
            name = f"{where}.NAME" if where in NAMED else where
            if fields is not None:
                keys |= {
                    f"{name}.{key}": (field.default, field.description or "")
                    for key, field in fields.model_fields.items()
                }
    return keys
