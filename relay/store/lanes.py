"""Chosen lanes of the outbox as conditions of a statement: which parameters these have, and their values."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import sqlalchemy as sa

from relay.domain.model import Lane, Platform
from relay.domain.subscription import naming
from relay.store.tables import outbox, registration

_ESCAPE: Final = "/"


class LaneForm(NamedTuple):
    """What a lane is limited by; the statement is the same for all lanes of a form."""

    app: bool
    service: bool
    retried: bool | None

    @classmethod
    def of(cls, lane: Lane) -> "LaneForm":
        """Return the form of a lane."""
        return cls(lane.app is not None, lane.service is not None, lane.retried)

    def condition(self, name: str) -> sa.ColumnElement[bool]:
        """Return the condition on outbox and registration, with parameters that begin with `name`."""
        found = registration.c.environment == sa.bindparam(f"{name}_environment")
        if self.app:
            found &= registration.c.app == sa.bindparam(f"{name}_app")
        if self.service:
            found &= registration.c.device_token.like(sa.bindparam(f"{name}_service"), escape=_ESCAPE)
        if self.retried is not None:
            found &= (outbox.c.attempts > 0) if self.retried else (outbox.c.attempts == 0)
        return found


LanesForm: TypeAlias = tuple[LaneForm | None, tuple[LaneForm, ...]]
"""The form of the only lane, if there is one, and those of the lanes that are left out."""


def conditions(form: LanesForm) -> Iterator[sa.ColumnElement[bool]]:
    """Return the conditions of all lanes of a form."""
    only, without = form
    yield outbox.c.platform == sa.bindparam("platform")
    if only is not None:
        yield only.condition("only")
    for number, shut in enumerate(without):
        yield sa.not_(shut.condition(f"without_{number}"))


@dataclass(frozen=True, slots=True)
class Lanes:
    """Chosen lanes of a platform."""

    platform: Platform
    only: Lane | None = None
    without: Collection[Lane] = ()

    @property
    def form(self) -> LanesForm:
        """What statements are made for."""
        return None if self.only is None else LaneForm.of(self.only), tuple(map(LaneForm.of, self.without))

    @property
    def values(self) -> dict[str, object]:
        """The values of the parameters of the conditions."""
        values: dict[str, object] = {"platform": self.platform.value}
        if self.only is not None:
            values |= _values("only", self.only)
        for number, lane in enumerate(self.without):
            values |= _values(f"without_{number}", lane)
        return values


def _values(name: str, lane: Lane) -> dict[str, object]:
    values: dict[str, object] = {f"{name}_environment": lane.environment.value}
    if lane.app is not None:
        values[f"{name}_app"] = lane.app
    if lane.service is not None:
        text = naming(lane.service)
        for special in (_ESCAPE, "%", "_"):  # the escape character first
            text = text.replace(special, _ESCAPE + special)
        values[f"{name}_service"] = f"%{text}%"
    return values
