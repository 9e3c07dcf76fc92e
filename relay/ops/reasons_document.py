"""The document that lists all reasons of mailboxes, written from the table; `make docs` runs this module."""

import sys
from collections.abc import Iterator
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.reasons import REASONS, Actor, Concern, Row, row_of

INTRODUCTION: Final = """\
# What each reason asks for

`make docs` writes this page from the table in `relay/domain/reasons.py`. Do not edit it; `make test` fails when the
page and the table differ.

A reason is the code beside the state of a mailbox. `relay explain` shows it with the detail behind `because` and with
what to do, health names the most frequent one, the metric `relay_mailboxes` counts them, and the API gives it to apps
in `mailbox.reason`. [eas-statuses.md](eas-statuses.md) says which answer of a mail server leads to which reason.
"""
SECTIONS: Final = {
    Concern.SERVER: (
        "The mail server, or the path to it",
        "A server that is down comes back by itself, a wrong URL does not. If many mailboxes have one, health says so.",
    ),
    Concern.RELAY: (
        "What the relay itself lacks",
        "Nothing is wrong with the users' credentials. An app hears only that the administrator of the relay must act.",
    ),
    Concern.MAILBOX: ("One mailbox, its user or its device", ""),
}
ALLOW: Final = "See [how to allow the relay](exchange-admin.md#allow-the-relay)."


def write() -> str:
    """Return the whole document, Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    for concern, (title, remark) in SECTIONS.items():
        yield f"## {title}"
        if remark:
            yield remark
            yield ""
        yield "| reason | who acts | what to do | the relay checks again |"
        yield "| --- | --- | --- | --- |"
        for reason, row in REASONS.items():
            if row.concern is concern:
                yield _line(reason, row)
        yield ""


def _line(reason: Reason, row: Row) -> str:
    remedy = f"{row.remedy} {ALLOW}" if row.access_rule else row.remedy
    again = row.recheck.value
    if reason is Reason.HTTP_401:
        again = f"while `waiting`, {row_of(WatchState.WAITING, reason).recheck}; then {again}"
    return f"| `{reason}` | {_who(row)} | {remedy} | {again} |"


def _who(row: Row) -> str:
    if row.actor is Actor.NOBODY and row.concern is Concern.SERVER:
        return "nobody; the administrator if it lasts"
    return "nobody" if row.actor is Actor.NOBODY else f"the {row.actor}"


if __name__ == "__main__":
    sys.stdout.write(write())
