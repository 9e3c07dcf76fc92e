from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, SecretStr, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from relay.api.faults import NAME, OTHER_NAMES, PATTERNS, Strict, complaint, misread


class Card(Strict):
    kind: Literal["card"]
    card_number: Annotated[SecretStr, Field(min_length=1, max_length=4)]
    phrase: Annotated[SecretStr, Field(min_length=4)] = SecretStr("none")
    owners: Annotated[list[str], Field(min_length=1, max_length=2)] = Field(default_factory=list)


class Cash(Strict):
    kind: Literal["cash"]
    coins: Annotated[frozenset[int], Field(max_length=2)] | None = None


class Order(Strict):
    unchangeable: ClassVar[frozenset[str]] = frozenset({"customer"})

    payment: Annotated[Card | Cash, Field(discriminator="kind")]
    size: Literal["large"] = "large"
    shipped_at: Annotated[float | None, Field(alias="shippedAt", gt=0, multiple_of=2)] = None
    name: Annotated[str, StringConstraints(pattern=NAME)] = "a"
    code: Annotated[str, Field(pattern="^[a-f]+$")] = "a"
    pieces: Annotated[int, Field(ge=1, le=9)] = 1
    wrapped: bool = False


def told(order: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as refusal:
        Order.model_validate(order)
    return [complaint(Order, fault) for fault in refusal.value.errors()]


CARD = {"kind": "card", "card_number": "1"}
CASH = {"kind": "cash"}


@pytest.mark.parametrize(
    ("order", "field", "words"),
    [
        ({}, "payment", "is missing"),
        ({"payment": None}, "payment", "is missing"),
        ([], "", "must be an object"),
        ({"payment": []}, "payment", "must be an object"),
        ({"payment": {}}, "payment.kind", "must be one of card, cash"),
        ({"payment": {"kind": "canary"}}, "payment.kind", "must be one of card, cash"),
        ({"payment": {"kind": "card"}}, "payment.card_number", "is missing"),
        (
            {"payment": {"kind": "card", "card_number": "canary"}},
            "payment.card_number",
            "must have at most 4 characters",
        ),
        ({"payment": {"kind": "card", "card_number": ""}}, "payment.card_number", "must not be empty"),
        ({"payment": {**CARD, "phrase": "can"}}, "payment.phrase", "must have at least 4 characters"),
        ({"payment": {**CARD, "owners": ["canary"] * 3}}, "payment.owners", "must have at most 2 entries"),
        ({"payment": {**CARD, "owners": []}}, "payment.owners", "must not be empty"),
        ({"payment": {**CASH, "coins": frozenset({1, 2, 3})}}, "payment.coins", "must have at most 2 entries"),
        ({"payment": CASH, "size": "canary"}, "size", "must be large"),
        ({"payment": CASH, "shippedAt": "canary"}, "shippedAt", "must be a number"),
        ({"payment": CASH, "shippedAt": -2.0}, "shippedAt", "must be more than 0.0"),
        ({"payment": CASH, "shippedAt": 3.0}, "shippedAt", "has a form that docs/api.md does not describe"),
        ({"payment": CASH, "name": "a canary"}, "name", PATTERNS[NAME.pattern]),
        ({"payment": CASH, "code": "canary"}, "code", "has a form that docs/api.md does not describe"),
        ({"payment": CASH, "pieces": "canary"}, "pieces", "must be a whole number"),
        ({"payment": CASH, "pieces": 10}, "pieces", "must be at most 9"),
        ({"payment": CASH, "wrapped": "canary"}, "wrapped", "must be true or false"),
        ({"payment": CASH, "customer": "canary"}, "customer", "never changes: leave it out"),
        (
            {"payment": CASH, "other": 1},
            "other",
            "is not known here: known are code, name, payment, pieces, shippedAt, size, wrapped",
        ),
        (
            {"payment": CASH, "Other-1": 1},
            "",
            "has a field that is not known here: known are code, name, payment, pieces, shippedAt, size, wrapped",
        ),
        ({"payment": CASH, "paymnt": 1}, "paymnt", "is not known here: did you mean `payment`?"),
        ({"payment": CASH, "Paymnt": 1}, "", "has a field that is not known here: did you mean `payment`?"),
        ({"payment": CASH, "shipped_at": 1}, "shipped_at", "is not known here: did you mean `shippedAt`?"),
        (
            {"payment": {"kind": "card", "card_number": "1", "cardNumber": "canary"}},
            "payment.cardNumber",
            "is not known here: did you mean `card_number`?",
        ),
        ({"payment": {**CASH, "card_number": 1}}, "payment.card_number", "is not known here: known are coins, kind"),
    ],
)
def test_a_fault_is_told_with_its_field_and_in_our_words(order: Any, field: str, words: str) -> None:
    assert told(order) == [(field, words)]
    assert "canary" not in str(told(order))


def test_a_body_that_is_null_is_no_object_and_not_missing() -> None:
    assert told(None) == [("", "must be an object")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", ": see line 1, column 0"),
        (b'{"canary":\n canary}', ": see line 2, column 2"),
        (b'{"canary": "\\ud800"}', ": see line 1, column 19"),
    ],
)
def test_a_body_that_is_no_json_is_told_with_the_place(text: bytes, words: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Order.model_validate_json(text)
    assert misread(refusal.value.errors()[0]) == f"the body is not JSON in UTF-8{words}"


def test_a_fault_without_a_place_is_told_without_it() -> None:
    with pytest.raises(ValidationError) as refusal:
        Order.model_validate_json("{")
    assert misread({**refusal.value.errors()[0], "msg": "Invalid JSON"}) == "the body is not JSON in UTF-8"


def test_words_of_our_own_stay_as_they_are() -> None:
    error = ValidationError.from_exception_data(
        "Order", [{"type": PydanticCustomError("ours", "needs one of both"), "loc": ("payment", "cash"), "input": None}]
    )

    assert [complaint(Order, fault) for fault in error.errors()] == [("payment", "needs one of both")]


def test_other_names_are_written_as_they_are_compared() -> None:
    assert all(name.isalnum() and name == name.lower() for name in OTHER_NAMES)
