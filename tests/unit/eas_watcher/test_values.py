import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pytest

from eas_watcher.values import by_slots, quick, replace


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    note: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Place(Point):
    name: str = ""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair(Generic[T]):
    first: T
    second: T


class Shape(ABC):
    __slots__ = ()

    @abstractmethod
    def area(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Square(Shape):
    side: int

    def area(self) -> int:
        return self.side**2


@dataclass(frozen=True, slots=True)
class Single:
    value: int


@dataclass(frozen=True)
class Loose:
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Checked:
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("no range")


def test_a_value_with_other_fields_equals_the_one_that_dataclasses_makes() -> None:
    place = Place(1, 2, "note", "home")

    given: list[dict[str, Any]] = [{}, {"x": 5}, {"name": "work", "y": 9, "note": "other"}]
    for changes in given:
        made = replace(place, **changes)
        assert made == dataclasses.replace(place, **changes)
        assert type(made) is Place
        assert made.note == changes.get("note", "note")
    assert place == Place(1, 2, "note", "home")


@pytest.mark.parametrize(
    ("value", "changes"), [(Single(1), {"value": 2}), (Loose(1, 2), {"y": 3}), (Checked(1, 2), {"low": 0})]
)
def test_values_that_slots_alone_do_not_make_are_made_by_dataclasses(value: Any, changes: dict[str, int]) -> None:
    assert replace(value, **changes) == dataclasses.replace(value, **changes)


def test_what_is_made_is_frozen() -> None:
    made = replace(Place(1), y=3)

    with pytest.raises(dataclasses.FrozenInstanceError):
        made.y = 4  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.y
    assert isinstance(made, Point)
    assert hash(made) == hash(Place(1, 3))


def test_values_of_classes_with_abstract_or_generic_bases_are_made() -> None:
    pair, square = replace(Pair(1, 2), second=3), replace(Square(2), side=3)

    assert pair == Pair(1, 3)
    assert type(pair) is Pair
    assert square.area() == 9
    assert type(square) is Square


def test_what_a_class_checks_is_checked() -> None:
    with pytest.raises(ValueError, match="no range"):
        replace(Checked(1, 2), low=3)


def test_a_name_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="Point has no field z"):
        replace(Point(1), z=3)  # type: ignore[call-arg]


def test_a_value_that_is_made_quickly_is_one_of_its_class() -> None:
    made = quick(Place)(1, y=2, note="note", name="home")

    assert made == Place(1, 2, "note", "home")
    assert (type(made), hash(made), made.note) == (Place, hash(Place(1, 2, "note", "home")), "note")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.x = 2  # type: ignore[misc]


@pytest.mark.parametrize("cls", [Loose, Checked])
def test_values_of_more_than_slots_are_not_made_quickly(cls: type) -> None:
    with pytest.raises(TypeError, match="more than its slots"):
        quick(cls)


@by_slots
@dataclass(frozen=True, slots=True)
class Span:
    begin: int
    end: int = 9


def test_a_value_whose_fields_are_set_by_slots_is_like_any_other() -> None:
    span = Span(1)

    assert (span, Span(2, end=3), hash(span)) == (Span(begin=1, end=9), replace(Span(2), end=3), hash(Span(1, 9)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        span.begin = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Span()  # type: ignore[call-arg]


@dataclass(frozen=True, slots=True)
class Listing:
    names: list[str] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("cls", [Loose, Checked, Listing])
def test_fields_of_more_than_slots_are_not_set_by_them(cls: type) -> None:
    with pytest.raises(TypeError, match="more than its slots"):
        by_slots(cls)
