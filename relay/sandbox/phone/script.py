"""The commands of an emulated phone: their words, and scripts of them, without I/O."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", re.ASCII)

COMMANDS: Final[Mapping[str, tuple[int, int, str]]] = {
    "register": (0, 1, "[alert|background]: the user logs in, the app registers"),
    "open": (0, 0, "open the app: it looks at its registration, and takes its banners away"),
    "off": (0, 0, "turn the phone off"),
    "on": (0, 0, "turn it on again"),
    "doze": (0, 0, "let the phone lie still with its screen off: Android dozes"),
    "wake": (0, 0, "pick it up"),
    "bucket": (1, 1, "active|frequent|rare: how often the app is used (Android)"),
    "wait": (1, 1, "30s|20m|2h|3d: let the phone's clock go on at once"),
    "pause": (1, 1, "2s: really wait"),
    "new-token": (0, 0, "the system gives the app another device token; the app sends it"),
    "environment": (1, 1, "right|wrong: the app names the environment of its token, or the other one (iPhone)"),
    "reinstall": (0, 0, "remove the app and install it: another token, the old one is gone, the app registers again"),
    "restore": (0, 1, "[fresh]: a backup goes to a new phone, with id and secret, or without them"),
    "login": (1, 1, "PASSWORD: the user types another password"),
    "logout": (0, 0, "the app removes its registration"),
    "test-push": (0, 0, "ask for a test push, and what became of it"),
    "deliver": (0, 1, "[CLASS]: an item arrives in the mailbox"),
    "read": (0, 0, "another client marks all as read"),
    "password": (1, 1, "NEW: the password of the mailbox changes"),
    "wipe": (0, 0, "an administrator wipes the device"),
    "block": (0, 1, "[end]: an administrator blocks the device"),
    "outage": (1, 2, "mail|apns|fcm|webpush|all [end]: a service is down"),
    "banners": (0, 0, "show what stands on the screen"),
    "expect": (1, 9, "see docs/sandbox.md: end with an error unless it happens"),
}
"""Word -> least and most arguments, and what it does."""

CHOICES: Final[Mapping[str, tuple[frozenset[str], ...]]] = {
    "register": (frozenset({"alert", "background"}),),
    "bucket": (frozenset({"active", "frequent", "rare"}),),
    "environment": (frozenset({"right", "wrong"}),),
    "restore": (frozenset({"fresh"}),),
    "deliver": (frozenset({"email", "calendar", "contacts", "tasks", "notes"}),),
    "block": (frozenset({"end"}),),
    "outage": (frozenset({"mail", "apns", "fcm", "webpush", "all"}), frozenset({"end"})),
}
"""Word -> what each of its arguments may be."""

EXPECTATIONS: Final = (
    "banner",
    "replaced",
    "woke",
    "held",
    "superseded",
    "expired",
    "discarded",
    "foreign",
    "test",
    "refused",
    "simctl",
    "nothing",
)
"""What may be expected to happen: to a push or a test push, a refusal of the relay, a push for Xcode's simulator."""
PATIENCE: Final = 20.0
"""Seconds that an expectation waits."""
QUIET: Final = 3.0
"""Seconds in which nothing must happen, for `expect nothing`."""


class ScriptFault(Exception):
    """A line is no command; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command."""

    name: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expectation:
    """Something that must happen, or be so, within some seconds."""

    subject: str
    """One of EXPECTATIONS, `banners` or `state`."""
    words: str = ""
    """A part of the text; for `banners` their number, for `state` the state."""
    within: float = PATIENCE


def read_script(text: str) -> list[Command]:
    """Return the commands of a script, one a line; # begins a comment. Raises ScriptFault with all faulty lines."""
    commands, faults = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            command = read_line(line)
        except ScriptFault as fault:
            faults.append(f"line {number}: {fault}")
        else:
            commands += [] if command is None else [command]
    if faults:
        raise ScriptFault("; ".join(faults))
    return commands


def read_line(line: str) -> Command | None:
    """Return the command of a line; None: it has none. Raises ScriptFault."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ScriptFault(str(error)) from error
    if not words:
        return None
    name, *arguments = words
    if name not in COMMANDS:
        raise ScriptFault(f"{name} is no command; there are {', '.join(COMMANDS)}")
    least, most, usage = COMMANDS[name]
    if not least <= len(arguments) <= most:
        raise ScriptFault(f"{name} {usage}")
    if any(given not in allowed for given, allowed in zip(arguments, CHOICES.get(name, ()), strict=False)):
        raise ScriptFault(f"{name} {usage}")
    if name in {"wait", "pause"}:
        read_duration(arguments[0])
    if name == "expect":
        read_expectation(arguments)
    return Command(name, tuple(arguments))


def read_duration(text: str) -> float:
    """Return the seconds of 30s, 20m, 2h or 3d; raises ScriptFault."""
    found = DURATION.fullmatch(text)
    if found is None:
        raise ScriptFault(f"{text} is no time: write 30s, 20m, 2h or 3d")
    return float(found[1]) * UNITS[found[2]]


def read_expectation(arguments: list[str] | tuple[str, ...]) -> Expectation:
    """Return what `expect` expects: SUBJECT [WORDS] [within|for TIME]; raises ScriptFault."""
    subject, *rest = arguments
    within = QUIET if subject == "nothing" else PATIENCE
    if len(rest) > 1 and rest[-2] in {"within", "for"}:
        within = read_duration(rest[-1])
        rest = rest[:-2]
    if subject not in (*EXPECTATIONS, "banners", "state"):
        raise ScriptFault(f"expect {subject}: there are {', '.join(EXPECTATIONS)}, banners NUMBER, state STATE")
    words = " ".join(rest)
    if subject == "banners" and not words.isdecimal():
        raise ScriptFault("expect banners: how many?")
    if subject == "state" and not words:
        raise ScriptFault("expect state: which?")
    return Expectation(subject, words, within)
