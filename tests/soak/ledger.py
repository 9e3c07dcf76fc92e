"""The account of a long run: which changes still need a push, and which pushes came without need."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from relay.sandbox.scripts import Received

OK = 200


@dataclass
class Ledger:
    """When each change began, by device token and mark; each needs a push of its own."""

    owed: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """(device token, mark) -> moments in `time.perf_counter_ns()`, before the change was made."""

    def owe(self, device_token: str, mark: str, moment: int) -> None:
        """Note a change; call it before the change is made."""
        self.owed.setdefault((device_token, mark), []).append(moment)

    def unpaid(self, received: Iterable[Received]) -> set[tuple[str, str]]:
        """Return the phones, with their marks, that got no accepted push after their last change."""
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
    """Return the class that a push to Apple or Google reports; for other notices their kind."""
    document = json.loads(push.body)
    data = document["relay"] if "relay" in document else document["message"]["data"]
    return str(data.get("class", data["kind"]))
