from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError

from relay.api.faults import OTHER_NAMES, Strict, complaint


class Card(Strict):
    kind: Literal["card"]
    card_number: Annotated[SecretStr, Field(max_length=4)]


class Cash(Strict):
    kind: Literal["cash"]
    coins: Annotated[frozenset[int], Field(max_length=2)] | None = None


class Order(Strict):
    unchangeable: ClassVar[frozenset[str]] = frozenset({"customer"})

    payment: Annotated[Card | Cash, Field(discriminator="kind")]
    size: Literal["large"] = "large"
    shipped_at: Annotated[float | None, Field(alias="shippedAt", gt=0)] = None


def told(order: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as refusal:
        Order.model_validate(order)
    return [complaint(Order, fault) for fault in refusal.value.errors()]


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
        ({"payment": {**CASH, "coins": frozenset({1, 2, 3})}}, "payment.coins", "must have at most 2 entries"),
        ({"payment": CASH, "size": "canary"}, "size", "must be large"),
        ({"payment": CASH, "shippedAt": "canary"}, "shippedAt", "must be a number"),
        ({"payment": CASH, "shippedAt": -1.0}, "shippedAt", "has a form that docs/api.md does not describe"),
        ({"payment": CASH, "customer": "canary"}, "customer", "never changes: leave it out"),
        ({"payment": CASH, "other": 1}, "other", "is not known here: known are payment, shippedAt, size"),
        ({"payment": CASH, "Other-1": 1}, "", "has a field that is not known here: known are payment, shippedAt, size"),
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


def test_words_of_our_own_stay_as_they_are() -> None:
    error = ValidationError.from_exception_data(
        "Order", [{"type": PydanticCustomError("ours", "needs one of both"), "loc": ("payment", "cash"), "input": None}]
    )

    assert [complaint(Order, fault) for fault in error.errors()] == [("payment", "needs one of both")]


def test_other_names_are_written_as_they_are_compared() -> None:
    assert all(name.isalnum() and name == name.lower() for name in OTHER_NAMES)
