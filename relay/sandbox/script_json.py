"""Own how scripts of failures are written in JSON: {"kind": its name, its fields}, and how often or to what share."""

from collections.abc import Mapping
from typing import Any, TypeVar

from relay.sandbox.scripts import Mixture

F = TypeVar("F")


def read_failure(fields: Mapping[str, Any], kinds: Mapping[str, type[F]]) -> tuple[F, int]:
    """Read a failure and how many requests it happens to; raises ValueError."""
    rest = dict(fields)
    times = _read_times(rest.pop("times", 1))
    return _read_kind(rest, kinds), times


def read_mixture(fields: Mapping[str, Any], kinds: Mapping[str, type[F]]) -> Mixture[F]:
    """Read failures with their shares; raises ValueError."""
    seed, failures = fields.get("seed", 1), fields.get("failures")
    if not isinstance(seed, int) or not isinstance(failures, list):
        raise ValueError("failures is a list, seed a number")  # noqa: TRY004  # the JSON is wrong, no type
    shares: list[tuple[F, float]] = []
    for failure in failures:
        rest = dict(failure) if isinstance(failure, dict) else {}
        share = rest.pop("share", None)
        if not isinstance(share, int | float):
            raise ValueError("each failure has a share, 0 to 1")  # noqa: TRY004  # the JSON is wrong, no type
        shares.append((_read_kind(rest, kinds), share))
    return Mixture(shares, seed)


def _read_times(times: object) -> int:
    if not isinstance(times, int) or times < 0:
        raise ValueError("times is a number, 0 for always")
    return times


def _read_kind(fields: dict[str, Any], kinds: Mapping[str, type[F]]) -> F:
    kind = fields.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"kind is one of {', '.join(kinds)}")
    try:
        return kinds[kind](**fields)
    except TypeError as error:
        raise ValueError(f"{kind}: {error}") from error
