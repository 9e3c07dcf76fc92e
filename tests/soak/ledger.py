"""Own the account of a long run: which change is owed a push, and which pushes nobody was owed."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from relay.sandbox.scripts import Received

OK = 200


@dataclass
class Ledger:
    """Hold when each change began, by who must hear of it and of what; each is owed a push of its own."""

    owed: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """(device token, mark) -> moments in `time.perf_counter_ns()`, before the change could be known to anybody."""

    def owe(self, device_token: str, mark: str, moment: int) -> None:
        """Note a change, before it is made."""
        self.owed.setdefault((device_token, mark), []).append(moment)

    def unpaid(self, received: Iterable[Received]) -> set[tuple[str, str]]:
        """Name those who got no accepted push since their last change."""
        last: dict[tuple[str, str], int] = {}
        for push in received:
            if push.status == OK:
                last[push.device_token, mark_of(push)] = push.moment
        return {key for key, moments in self.owed.items() if last.get(key, 0) < moments[-1]}

    def repeats(self, received: Iterable[Received]) -> int:
        """Count accepted pushes beyond one for each change."""
        pushes = Counter((push.device_token, mark_of(push)) for push in received if push.status == OK)
        return sum(max(0, count - len(self.owed.get(key, ()))) for key, count in pushes.items())

    @property
    def changes(self) -> int:
        """Count all changes."""
        return sum(map(len, self.owed.values()))


def mark_of(push: Received) -> str:
    """Read which class a push to Apple or Google was about; other notices have their kind."""
    document = json.loads(push.body)
    data = document["relay"] if "relay" in document else document["message"]["data"]
    return str(data.get("class", data["kind"]))
