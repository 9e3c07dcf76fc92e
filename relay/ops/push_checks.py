"""The health of the push role: faults and outages of its providers, refused device tokens, and pushes that wait."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from relay.domain.clock import Clock
from relay.domain.model import Environment, Platform
from relay.domain.ports.ops import TokenLevel
from relay.domain.shadow import Shadow
from relay.ops.counts import Counts, CountsCache
from relay.ops.health import OK, Finding, Part, PartState
from relay.push.apns.answers import BAD_DEVICE_TOKEN
from relay.push.egress.leaving import ROOM
from relay.push.egress.log import EgressState
from relay.push.fcm.projects import Projects
from relay.push.stats import Outage, PushStats
from relay.push.webpush.services import Services

OLD: Final = timedelta(minutes=5)  # neither a restart nor a retry delays a push for so long
SOME: Final = 0.1  # of an app's tokens; fewer are a problem of single phones
MOST: Final = 0.5  # of an app's tokens; more are a problem of the app or of our settings
FEW: Final = 5  # tokens; so few may belong to one tester

SHOWN: Final = timedelta(days=1)  # health shows a change of the egress log for so long
MEGABYTE: Final = 1_000_000  # bytes

OTHER_ENVIRONMENT: Final = {
    Environment.PRODUCTION: "If these are development builds, their app has to register with environment = sandbox",
    Environment.SANDBOX: "If these are builds from the store or TestFlight, their app has to register with "
    "environment = production, and apns.sandbox_host must be Apple's sandbox",
}


def provider(platform: Platform, stats: PushStats, counts: CountsCache, clock: Clock) -> Part:
    """Return the part of a push provider: faults of its channels, its outages, and the age of waiting pushes."""

    def check() -> Finding:
        if (fault := stats.fault) is not None:
            where = f"{fault.app} ({fault.environment.value}): {fault.reason}"
            return Finding(PartState.FAILED, f"cannot push to {where}", _sentence(fault.remedy))
        newest = counts.newest
        if (outage := stats.outage) is not None:
            since = f"{outage.since:%Y-%m-%d %H:%M} UTC"
            reason = f"serves nobody ({outage.environment.value}) since {since}: {outage.reason}"
            return Finding(PartState.FAILED, reason, _sentence(outage.remedy) or _reach(platform))
        return OK if newest is None else _waiting(platform, newest, stats.doubts.values(), clock())

    return Part(platform.value, check)


def tokens(platform: Platform, counts: CountsCache) -> Part:
    """Return the part of a platform's device tokens: the share that the provider refuses."""

    def check() -> Finding:
        newest = counts.newest
        levels = [] if newest is None else [level for level in newest.tokens if level.platform is platform]
        groups = {(level.app, level.environment) for level in levels}
        found = [_refused([each for each in levels if (each.app, each.environment) == group]) for group in groups]
        return max(found, key=lambda pair: pair[0], default=(0.0, OK))[1]

    return Part(f"{platform.value} tokens", check)


def channels(stats: Collection[PushStats], *, essential: bool) -> Part:
    """Return the part that fails when no app can be pushed to; `essential` where the process does nothing else.

    A provider that has had no push yet does not count.
    """

    def check() -> Finding:
        used = [each for each in stats if each.channels]
        if not used or not all(each.dead for each in used):
            return OK
        remedy = "Correct what the parts of the providers name; the process is ready again by itself."
        return Finding(PartState.FAILED, "no app can be pushed to: every channel has a fault", remedy)

    return Part("push channels", check, essential=essential)


def push_mode(shadow: Shadow) -> Part:
    """Return the part that says which pushes shadow mode holds back; it is what the operator wants, so all is well."""

    def check() -> Finding:
        words = shadow.mode.words
        return Finding(PartState.OK, words, "Set push.mode = live when phones shall get pushes.") if words else OK

    return Part("push mode", check)


def push_services(services: Services) -> Part:
    """Return the part of the push services of WebPush: those that are away. Only their own pushes wait."""

    def check() -> Finding:
        away = services.away
        if not away:
            return OK
        reason = "; ".join(f"{each.service} is away or refuses: {each.reason}" for each in away)
        remedy = "Check that this host reaches it (firewall, proxy, DNS, certificate), and that it runs."
        state = PartState.FAILED if len(away) == services.known else PartState.DEGRADED
        return Finding(state, reason, _sentence(away[0].remedy) or remedy)

    return Part("push services", check)


def fcm_projects(projects: Projects) -> Part:
    """Return the part of several Firebase projects: those that take no push now. Only the pushes of their apps wait."""

    def check() -> Finding:
        away = {table: project for table, project in projects.states.items() if project.away}
        if not away:
            return OK
        reason = "; ".join(
            f"[{table}] takes no push, for {', '.join(project.apps)}: {project.breaker.detail}"
            for table, project in away.items()
        )
        state = PartState.FAILED if len(away) == len(projects.states) else PartState.DEGRADED
        remedy = next((_sentence(project.remedy) for project in away.values() if project.remedy), "")
        return Finding(state, reason, remedy or _reach(Platform.FCM))

    return Part("fcm projects", check)


def egress_log(egress: EgressState, low: int, clock: Clock, *, essential: bool) -> Part:
    """Return the part of the egress log: whether it can be written, what others did to it, and the room on its disk."""

    def check() -> Finding:
        if egress.trouble:
            return Finding(PartState.FAILED, f"cannot be written, so no push leaves: {egress.trouble}", _sentence(ROOM))
        incident = egress.incident
        if incident is not None and clock() - datetime.fromisoformat(incident.at) < SHOWN:
            remedy = "See who can write to egress.folder; let the relay remove old files (egress.keep_days)."
            return Finding(
                PartState.DEGRADED, f"was changed by somebody else at {incident.at}: {incident.what}", remedy
            )
        if egress.free is not None and egress.free < low:
            text = f"its disk has {egress.free // MEGABYTE} MB left"
            return Finding(PartState.DEGRADED, text, "Make room: without it no push leaves. See egress.keep_megabytes.")
        return OK

    return Part("egress log", check, essential=essential)


def _refused(levels: Sequence[TokenLevel]) -> tuple[float, Finding]:
    """Return the share of refused tokens of one app in one environment, and the finding about it."""
    total = sum(level.registrations for level in levels)
    bad = sum(level.registrations for level in levels if level.reason)
    if not bad:
        return 0.0, OK
    reasons: Counter[str] = Counter()
    for level in levels:
        reasons[level.reason] += level.registrations if level.reason else 0
    reason = reasons.most_common(1)[0][0]
    remedy = next(_sentence(level.remedy) for level in levels if level.reason == reason)
    app, environment = levels[0].app, levels[0].environment
    share = bad / total
    if bad < total:
        text = f"{bad} of {total} registrations of {app} ({environment.value}) are refused, most: {reason}"
    else:
        text = f"all {total} {environment.value} tokens of {app} are refused: {reason}"
        if reason == BAD_DEVICE_TOKEN:
            remedy = f"{OTHER_ENVIRONMENT[environment]}. {remedy}"
    if share < SOME:
        return share, Finding(PartState.OK, text, remedy)
    failed = share >= MOST and bad >= FEW
    return share, Finding(PartState.FAILED if failed else PartState.DEGRADED, text, remedy)


def _waiting(platform: Platform, counts: Counts, doubts: Collection[Outage], now: datetime) -> Finding:
    level = counts.outbox.get(platform)
    if level is None:
        return OK
    if level.parked:
        remedy = "This is a fault of the relay: report it with the log lines `push set aside`; each is tried hourly."
        return Finding(PartState.DEGRADED, f"{level.parked} pushes are set aside", remedy)
    if level.oldest_at is None or now - level.oldest_at <= OLD:
        return OK
    minutes = int((now - level.oldest_at).total_seconds() // 60)
    reason = f"{level.pending} pushes wait, the oldest for {minutes} minutes, {level.failing} have failed before"
    for doubt in doubts:
        # Too few phones to say that the provider serves nobody.
        reason += f"; no push is taken since {doubt.since:%Y-%m-%d %H:%M} UTC: {doubt.reason}"
        return Finding(PartState.DEGRADED, reason, _sentence(doubt.remedy) or _reach(platform))
    return Finding(PartState.DEGRADED, reason, f"Check that a push process runs. {_reach(platform)}")


def _reach(platform: Platform) -> str:
    return f"Check that the host of the push process reaches {platform.value.upper()}: firewall, proxy, DNS."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
