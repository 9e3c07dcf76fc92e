"""How frozen values are made: as by `dataclasses.replace` in a tenth of its time, as by their class in a quarter.

A mail changes some twenty values of its watch. `dataclasses.replace` looks at each field in Python twice, and sets it
by a call that looks it up once more. Here a function that is made for the class and the names of the fields, as
`dataclasses` makes methods, sets the fields of an object that is not frozen yet: its class has the same slots, so that
it may become a value of the frozen class when it is whole.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

__all__ = ("by_slots", "quick", "replace")

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
    if not _is_plain(cls):
        return _make_by_init
    lines = ["def make(value, changes):", " new = create(thawed)"]
    for field in fields:
        content = f"changes[{field.name!r}]" if field.name in changed else f"value.{field.name}"
        lines.append(f" new.{field.name} = {content}")
    names: dict[str, Any] = {"create": object.__new__, "thawed": _thawed(cls), "cls": cls}
    exec("\n".join([*lines, " new.__class__ = cls", " return new"]), names)  # noqa: S102  # ours, but for names of fields
    make: Maker = names["make"]
    return make


def _is_plain(cls: type) -> bool:
    """Return True if the slots of its fields are all that makes a value of a class."""
    fields = dataclasses.fields(cls)
    slots = all(isinstance(getattr(cls, field.name, None), MemberDescriptorType) for field in fields)
    return slots and not hasattr(cls, "__post_init__") and all(field.init for field in fields)


@cache
def _thawed(cls: type) -> type:
    """Return a frozen class once more, with fields that can be set."""
    own = {name: value for name, value in vars(cls).items() if not isinstance(value, MemberDescriptorType)}
    free = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}  # of one slot: both, or it is slow
    thawed: type = type(cls)(cls.__name__, cls.__bases__, {**own, **free})
    return thawed


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


def quick(cls: type[T]) -> type[T]:
    """Return a function that makes values of a frozen dataclass of all its fields, in a quarter of its time.

    It is typed as the class, whose arguments mypy checks. Raises TypeError for a class with more than plain slots.
    """
    plain: Any = cls
    if not _is_plain(plain):
        raise TypeError(f"{cls.__name__} is more than its slots")
    fields = [field.name for field in dataclasses.fields(plain)]
    lines = [f"def make({', '.join(fields)}):", " new = create(thawed)", *(f" new.{name} = {name}" for name in fields)]
    names: dict[str, Any] = {"create": object.__new__, "thawed": _thawed(plain), "cls": cls}
    exec("\n".join([*lines, " new.__class__ = cls", " return new"]), names)  # noqa: S102  # as above
    made: type[T] = names["make"]
    return made


def by_slots(cls: type[T]) -> type[T]:
    """Make the objects of a frozen dataclass in half the time: `object.__setattr__`, which it uses, looks up each slot.

    Raises TypeError for a class whose fields are more than slots with plain defaults.
    """
    plain: Any = cls
    fields = dataclasses.fields(plain)
    if not _is_plain(plain) or any(
        field.kw_only or field.default_factory is not dataclasses.MISSING for field in fields
    ):
        raise TypeError(f"{cls.__name__} is more than its slots")
    given = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    parameters = [f"{field.name}=given_{field.name}" if field.name in given else field.name for field in fields]
    lines = [
        f"def __init__(self, {', '.join(parameters)}):",
        *(f" _set_{field.name}(self, {field.name})" for field in fields),
    ]
    names: dict[str, Any] = {f"given_{name}": default for name, default in given.items()}
    names |= {f"_set_{field.name}": getattr(cls, field.name).__set__ for field in fields}
    exec("\n".join(lines), names)  # noqa: S102  # as above
    plain.__init__ = names["__init__"]
    return cls


if TYPE_CHECKING:
    from dataclasses import replace  # whose arguments mypy checks
else:
    replace = _replace
