"""Which checks a role needs: what it does not reach by design is skipped with a word."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from eas_watcher.auth.negotiate import Service
from eas_watcher.own_thread import in_own_thread
from eas_watcher.peer_clocks import PeerClocks
from relay.doctor import host
from relay.doctor.canary import look_at_submission
from relay.doctor.database import look_at_database
from relay.doctor.examination import Check, Once, examine
from relay.doctor.finding import Finding, Subject
from relay.doctor.mail_servers import MailServers
from relay.doctor.mail_servers import proxies as ways
from relay.doctor.reaching import Proxies, ProxyUse, place_of
from relay.domain.clock import Clock
from relay.domain.model import Role
from relay.domain.subscription import WINDOWS
from relay.network.route import Route
from relay.ops import checks
from relay.ops.health import PartState
from relay.push.apns.config import ApnsCertificate
from relay.settings import Settings
from relay.settings.webpush import PUSHES

Look = Callable[[], Awaitable[Sequence[Finding]]]
WATCHES: Final = frozenset({Role.ALL, Role.WATCH})


class Doctor:
    """Examines one role of a relay."""

    def __init__(self, settings: Settings, now: Clock) -> None:
        """Ask nothing yet."""
        self._settings = settings
        self._now = now
        self._clocks = PeerClocks(now)
        self._random = SystemRandom()
        self._running = host.Running(settings)
        self._ports = Once(self._running.look)
        self._database = Once(partial(look_at_database, settings, self._clocks, now))

    async def examine(self) -> AsyncIterator[Finding]:
        """Yield all findings; nothing is changed anywhere."""
        for key, wrong, remedy in self._settings.warnings:
            yield Subject("setting", key).note(wrong, remedy)
        questions: list[Once[Any]] = [self._ports, self._database]
        proxies = Proxies(self._now, questions)
        try:
            checks_of_role = [*self._here(), *self._mail(proxies), *self._push(proxies), *self._traces(proxies)]
            async for finding in examine(checks_of_role):
                yield finding
        finally:
            for question in questions:
                await question.cancel()
        # Last, since it compares the dates in all answers.
        yield judge_clock(self._clocks)

    def _here(self) -> list[Check]:
        settings = self._settings
        found = [
            _check("folder", "relay.state_dir", _in_thread(partial(host.look_at_folders, settings))),
            _check("port", "ops.port", self._ports.answer),
            _check("database", "database.url", self._look_at_database),
            _check("files", "open files", self._look_at_files),
        ]
        if settings.api is not None:
            look = _in_thread(partial(host.look_at_certificate, settings, self._now))
            found.append(_check("certificate", "api.certificate_file", look))
        return found

    async def _look_at_database(self) -> Sequence[Finding]:
        return (await self._database.answer()).findings

    async def _look_at_files(self) -> Sequence[Finding]:
        known, _ = await asyncio.gather(self._database.answer(), self._ports.answer())
        return [host.look_at_files(self._settings, known.mailboxes, self._running.files)]

    def _mail(self, proxies: Proxies) -> list[Check]:
        settings = self._settings
        if settings.role not in WATCHES:
            return [_skip("mail servers", f"role {settings.role} does not reach them")]
        asks = MailServers(self._now, self._random, self._clocks, proxies)
        found = [
            _check("proxy", use.proxy.setting, partial(proxies.look, use))
            for use in ways(settings.servers, settings.autodiscover)
        ]
        for name, server in settings.servers.items():
            table = f"servers.{name}"
            found.append(_check("ActiveSync", table, partial(asks.look, name, server, self._database.answer)))
            if server.oauth is not None:
                found.append(_check("OAuth", table, partial(asks.look_at_oauth, name, server.oauth, server.proxy)))
            if server.kerberos is not None and isinstance(service := server.kerberos.service, Service):
                found.append(_check("Kerberos", table, partial(asks.look_at_kdc, name, server.url, service)))
        if settings.canary is not None and settings.canary.submission is not None:
            look = partial(look_at_submission, settings.canary.submission)
            found.append(_check("SMTP", "canary.smtp_host", look))
        for one in sorted(settings.autodiscover.hosts):
            look = partial(asks.look_at_autodiscover, settings.autodiscover, one)
            found.append(_check("Autodiscover", f"autodiscover {one}", look))
        return found

    def _push(self, proxies: Proxies) -> list[Check]:
        """Return the checks of providers."""
        settings = self._settings
        if settings.role not in PUSHES:
            return [_skip("providers", f"role {settings.role} does not reach the Internet")]
        from relay.doctor import providers  # noqa: PLC0415 -- the libraries of the role that pushes

        asks = providers.Providers(self._now, self._random, self._clocks, proxies)
        apns, fcm, webpush = settings.apns, settings.fcm, settings.webpush.sender
        found = [
            _check("proxy", use.proxy.setting, partial(proxies.look, use))
            for use in providers.proxies(apns, fcm, webpush)
        ]
        if apns is not None:
            wanted = {environment for account in apns.accounts for environment in account.environments}
            for environment in sorted(wanted):
                look = partial(asks.look_at_apns, apns, environment)
                found.append(_check("push", f"apns {environment.value}", look))
            for account in apns.accounts:
                if isinstance(account.authentication, ApnsCertificate):
                    expiry = partial(judge_expiry, account.file_setting, account.authentication.file, self._now)
                    found.append(_check("certificate", account.file_setting, _in_thread(expiry)))
        if fcm is not None:
            found.append(_check("push", "fcm", partial(asks.look_at_fcm, fcm)))
        if webpush is not None:
            vapid = partial(providers.look_at_vapid, webpush, self._now)
            found.append(_check("VAPID", "webpush.vapid_key_file", _in_thread(lambda: [vapid()])))
            for service in sorted(webpush.services - {WINDOWS}):  # its hosts are known when phones name them
                look = partial(asks.look_at_service, webpush, service)
                found.append(_check("push service", f"webpush {service}", look))
        return found

    def _traces(self, proxies: Proxies) -> list[Check]:
        """Return the checks of the way to the collector of traces; one without TLS is on this host."""
        tracing = self._settings.tracing
        if tracing is None or not tracing.endpoint.startswith("https:"):
            return []
        route = Route(tracing.proxy, tracing.sources)
        place = place_of("tracing.endpoint", tracing.endpoint, tracing.ca_file, "tracing.ca_file", route)

        async def look() -> Sequence[Finding]:
            return (await proxies.reach(place)).findings

        found = [_check("collector", "tracing.endpoint", look)]
        if tracing.proxy is not None and tracing.proxy.setting == "tracing.proxy":
            use = ProxyUse(tracing.proxy, tracing.sources, place.host, place.port)
            found.insert(0, _check("proxy", tracing.proxy.setting, partial(proxies.look, use)))
        return found


def judge_expiry(setting: str, file: Path, now: Clock) -> list[Finding]:
    """Return the finding about a certificate that the relay shows to a provider: how long it is still valid."""
    subject = Subject("certificate", setting)
    found = checks.certificate(setting, file, now).check()
    if found.state is not PartState.OK:
        return [subject.note(found.reason, found.remedy)]
    return [subject.good("is valid for more than two weeks")]


def judge_clock(clocks: PeerClocks) -> Finding:
    """Return the finding about this host's clock, by the dates in the answers that came."""
    subject = Subject("clock", "this host")
    found = checks.clock(clocks).check()
    peers = len(clocks.differences())
    if found.state is not PartState.OK:
        agreed = clocks.difference is not None and clocks.difference.agree
        return (subject.note if agreed else subject.bad)(found.reason, found.remedy)
    if not peers:
        return subject.skipped("no answer had a date to compare with")
    return subject.good(f"agrees with {peers} other{'s' if peers > 1 else ''}, within a minute")


def _check(check: str, name: str, look: Look) -> Check:
    return Check(Subject(check, name), look)


def _skip(what: str, why: str) -> Check:
    async def look() -> Sequence[Finding]:
        return [Subject("role", what).skipped(why)]

    return _check("role", what, look)


def _in_thread(look: Callable[[], Sequence[Finding]]) -> Look:
    """Return a check that may wait for a disk; one that hangs must not hold the command."""
    return partial(in_own_thread, look, "a check of a disk")
