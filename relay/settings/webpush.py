"""Checks of [webpush]: the push services, the apps, and the VAPID key that identifies the relay."""

from collections.abc import Sequence
from typing import Final

from relay.domain.model import Role
from relay.domain.subscription import BROWSERS, read_service
from relay.push.payload import WEB_APP
from relay.push.webpush.config import WebPushConfig
from relay.push.webpush.vapid import public_key
from relay.settings.files import Files
from relay.settings.network import NetworkChecks
from relay.settings.push_sections import WebPushSection
from relay.settings.source import Sections
from relay.settings.values import WebAppSettings, WebPushSettings

TABLE: Final = "webpush"
NO_WEBPUSH: Final = WebPushSettings(frozenset(), frozenset(), "", None)
PUSHES: Final = frozenset({Role.ALL, Role.PUSH})
MAKE_KEY: Final = "Run `relay vapid --new`, or restore the key from your backup: subscriptions were made for it alone."


class WebPushChecks:
    """Checks [webpush] for one role; faults go to `files.faults`."""

    def __init__(
        self, sections: Sections, files: Files, role: Role, network: NetworkChecks, webapp: WebAppSettings | None
    ) -> None:
        """`network` has been checked if `role` pushes; `webapp` is the relay's own app."""
        self._webapp = webapp
        self._network = network
        self._sections = sections
        self._files = files
        self._faults = files.faults
        self._role = role

    def settings(self) -> WebPushSettings:
        """Return the settings; usable only if there are no faults."""
        section = self._sections.read(TABLE, WebPushSection, self._faults)
        if TABLE not in self._sections.tables or self._role is Role.WATCH:
            return NO_WEBPUSH
        if self._webapp is None and not any(key.startswith("webapp.") for key, *_ in self._faults.list):
            self._require("apps", section.apps, "List the names of your apps.")
        self._require("hosts", section.hosts, "List the hosts of the push services that your users' devices use.")
        services = self._services("hosts", section.hosts)
        sender = public = None
        if self._role in PUSHES:
            sender, public = self._sender(section, services)
            if section.public_key is not None and public is not None and section.public_key != public:
                remedy = "Remove it, or set it to what `relay vapid` prints."
                self._faults.add("webpush.public_key", "is not the public key of webpush.vapid_key_file", remedy)
        else:
            self._require("public_key", section.public_key, "Set it to what `relay vapid` prints where the key is.")
            public = section.public_key
        apps = frozenset(section.apps) if self._webapp is None else frozenset({*section.apps, WEB_APP})
        return WebPushSettings(apps, services, public or "", sender)

    def _services(self, name: str, hosts: Sequence[str]) -> frozenset[str]:
        """Return the push services that the key `name` lists, as registrations write them, or WINDOWS."""
        services = {BROWSERS.get(host.lower()) or read_service(host) for host in hosts}
        if None in services:
            remedy = (
                f"Write {', '.join(BROWSERS)} for the services of browsers, and other hosts as in push.example.com, "
                "or push.example.com:8443, without https:// and path."
            )
            self._faults.add(f"{TABLE}.{name}", "holds what is no host", remedy)
        return frozenset(service for service in services if service is not None)

    def _sender(self, section: WebPushSection, services: frozenset[str]) -> tuple[WebPushConfig | None, str | None]:
        """Return what the sender needs and the public half of its key."""
        subject, file = section.subject, section.vapid_key_file
        remedy = "Set it to mailto:ADDRESS or an https:// URL where operators of push services reach you."
        self._require("subject", subject, remedy)
        ca_file = self._files.ca("webpush.ca_file", section.ca_file)
        if not self._require("vapid_key_file", file, "Name a file, then run `relay vapid --new`.") or file is None:
            return None, None
        path = self._files.path(file)
        pem = self._files.vapid_key("webpush.vapid_key_file", path, MAKE_KEY)
        if pem is None:
            return None, None
        config = WebPushConfig(
            services,
            path,
            subject or "",
            ca_file=ca_file,
            in_flight=section.in_flight,
            route=self._network.route("webpush.proxy", section.proxy),
            pages=None if self._webapp is None else self._webapp.pages,
            direct=self._direct(section, services),
        )
        return config, public_key(pem)

    def _direct(self, section: WebPushSection, services: frozenset[str]) -> frozenset[str]:
        """Return the push services that the relay reaches without a proxy."""
        direct = self._services("straight_hosts", section.straight_hosts)
        if not direct <= services:
            remedy = "Write them as in webpush.hosts, and list them there too."
            self._faults.add("webpush.straight_hosts", "holds a host that webpush.hosts does not list", remedy)
        return direct

    def _require(self, name: str, given: object, remedy: str) -> bool:
        return self._faults.require(f"{TABLE}.{name}", given, remedy)
