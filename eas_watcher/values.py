"""How a frozen value with other fields is made: as by `dataclasses.replace`, in a third of its time.

A mail changes some twenty values of its watch. `dataclasses.replace` looks at each field in Python twice, and sets it
by a call that looks it up once more; here a function that is made for the class and the names of the fields, as
`dataclasses` makes methods, reads all other fields and sets them by the descriptors of their slots.
"""

import dataclasses
from collections.abc import Callable
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

__all__ = ("replace",)

T = TypeVar("T")

Maker: TypeAlias = Callable[[Any, dict[str, Any]], Any]

_makers: Final[dict[tuple[Any, ...], Maker]] = {}
"""By class and the names of the fields that change: as many as there are places in the source that call `replace`."""


def _maker(cls: type, changed: tuple[str, ...]) -> Maker:
    """Return what makes a value of a dataclass of another one and a mapping of the changed fields.

    Raises TypeError for a name that is no field.
    """
    fields = dataclasses.fields(cls)
    for name in changed:
        if all(field.name != name for field in fields):
            raise TypeError(f"{cls.__name__} has no field {name}")
    members = [getattr(cls, field.name, None) for field in fields]
    setters = [member.__set__ for member in members if isinstance(member, MemberDescriptorType)]
    plain = not hasattr(cls, "__post_init__") and all(field.init for field in fields)
    if not plain or len(setters) < len(fields):
        return _make_by_init  # slots are not all that makes a value
    lines = ["def make(value, changes):", " new = create(cls)"]
    for place, field in enumerate(fields):
        content = f"changes[{field.name!r}]" if field.name in changed else f"value.{field.name}"
        lines.append(f" set{place}(new, {content})")
    names: dict[str, Any] = {"create": object.__new__, "cls": cls}
    names |= {f"set{place}": setter for place, setter in enumerate(setters)}
    exec("\n".join([*lines, " return new"]), names)  # noqa: S102  # nosec B102  # ours, but for names of fields
    make: Maker = names["make"]
    return make


def _make_by_init(value: Any, changes: dict[str, Any]) -> Any:
    return dataclasses.replace(value, **changes)


def _replace(value: T, /, **changes: Any) -> T:
    """Return a value with other fields; raises TypeError for a name that is no field."""
    key = value.__class__, *changes
    make = _makers.get(key)
    if make is None:
        make = _makers[key] = _maker(value.__class__, tuple(changes))
    new: T = make(value, changes)
    return new


if TYPE_CHECKING:
    from dataclasses import replace  # whose arguments mypy checks
else:
    replace = _replace
