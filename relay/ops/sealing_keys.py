"""The part of health of the sealing keys."""

from typing import Final

from relay.domain.sealing_keys import named
from relay.ops.health import OK, Finding, Part, PartState
from relay.security.key_presence import KeyPresence
from relay.watch.turnover import TurnoverProgress

PART: Final = "sealing keys"
GIVE: Final = (
    "Put the private key beside sealing.private_key_file on the hosts of these processes, readable by the relay alone; "
    "they take it within seconds. `relay keys list` shows who has which key."
)
ROTATE: Final = (
    "Stored credentials are sealed for a new key once all watch processes have it as the present one: run "
    "`relay keys rotate` on the hosts where the older one is in use."
)
WAIT: Final = (
    "Nothing now: a process that was killed counts as gone after 75 s. One that stands still or starts needs the key "
    "when it goes on: `relay keys list` shows who has which key."
)
RESTORE: Final = (
    "`relay keys list` names the key: restore it from your backup beside sealing.private_key_file. If it is lost, "
    "their users must log in again."
)


def sealing_keys(keys: KeyPresence, progress: TurnoverProgress | None) -> Part:
    """Return the part of the keys, checked by what other processes have, and by what opens with none of them."""

    def check() -> Finding:
        name = keys.wanted.name
        if lacking := named(keys.without, leased=True):
            text = f"the key {name} waits: {lacking} cannot open what is sealed for it"
            return Finding(PartState.DEGRADED, text, GIVE)
        if behind := named(keys.behind, leased=True):
            text = f"{behind} seals with another key than the one here, {name}"
            return Finding(PartState.DEGRADED, text, ROTATE)
        if unsure := named({*keys.without, *keys.behind}, leased=False):
            text = f"the key {name} waits: {unsure} starts, or has ended without a word"
            return Finding(PartState.DEGRADED, text, WAIT)
        if progress is not None and progress.closed:
            text = f"{progress.closed} stored credentials open with no key of this process"
            return Finding(PartState.DEGRADED, text, RESTORE)
        return OK

    return Part(PART, check)
