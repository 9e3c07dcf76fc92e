"""The items that a collection showed last: by them the relay tells whether a server shows an item again."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from eas_watcher.names import ServerId
from eas_watcher.values import by_slots

SEEN_KEPT: Final = 64  # ids per collection: an answer and its repetition have 25 each at most (WINDOW_SIZE)
END: Final = "\0"  # no text of XML has this character [XML 1.0, 2.2]


@by_slots
@dataclass(frozen=True, slots=True)
class SeenIds:
    """The ids of items, oldest first, as one text: short texts take 60 bytes each, and an id has ten letters."""

    text: str = ""
    """Each id is between two END; empty: there is no id."""

    @classmethod
    def of(cls, ids: Iterable[ServerId]) -> "SeenIds":
        """Return some ids as they are."""
        text = "".join([f"{id_}{END}" for id_ in ids])
        return cls(f"{END}{text}") if text else NONE_SEEN

    def with_newer(self, ids: Sequence[ServerId]) -> "SeenIds":
        """Return these and newer ones, at most SEEN_KEPT."""
        if not ids:
            return self
        text = f"{self.text or END}{END.join(ids)}{END}"
        start = 0
        for _ in range(text.count(END) - 1 - SEEN_KEPT):
            start = text.index(END, start + 1)
        return SeenIds(text[start:])

    def __contains__(self, id_: object) -> bool:
        """Return True if an id is one of these."""
        return f"{END}{id_}{END}" in self.text

    def __iter__(self) -> Iterator[ServerId]:
        """Yield the ids in their order."""
        return iter(cast("list[ServerId]", self.text[1:-1].split(END)) if self.text else ())

    def __len__(self) -> int:
        """Return how many there are."""
        return self.text.count(END) - 1 if self.text else 0


NONE_SEEN: Final = SeenIds()
