"""The words for what is wrong with a body: field by field, for the developer of an app.

No text repeats a value, or a length that only a value has, because it may be a password. A name that the models do not
know may be a secret too, one that landed in the wrong place, so it is repeated only if it is a plain word.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

Path = tuple[int | str, ...]


class Strict(BaseModel):
    """The base of every model of a body."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
    unchangeable: ClassVar[frozenset[str]] = frozenset()
    """Fields that the model has not, because they never change: a text says so."""


MOST: Final = 20
"""Faults that a refusal names; each takes some 40 µs of the loop's time, and 16 KiB have room for thousands."""
WORD: Final = re.compile(r"[a-z_]{1,32}", re.ASCII)
"""The form of an unknown field that a text may name."""
NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", re.ASCII)
"""The form of names of apps and servers."""
VISIBLE: Final = re.compile(r"^[!-~]+\Z", re.ASCII)
"""The form of names that other servers give out, as OAuth's client ids [RFC 6749 A.1]."""

OTHER_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("devicetoken", "pushtoken", "registrationtoken", "fcmtoken", "apnstoken"), "token"),
    **dict.fromkeys(("installationid", "firebaseinstallationid", "fidtoken"), "fid"),
    **dict.fromkeys(("bundleid", "bundleidentifier", "packagename", "package", "appid", "topic"), "app"),
    **dict.fromkeys(("username", "login", "userid", "upn"), "user"),
    **dict.fromkeys(("pass", "passwd", "passwort"), "password"),
    **dict.fromkeys(("email", "emailaddress", "account", "address"), "mailbox"),
    **dict.fromkeys(("language", "lang"), "locale"),
    **dict.fromkeys(("folders", "class"), "classes"),
    **dict.fromkeys(("env", "apsenvironment"), "environment"),
    **dict.fromkeys(("url", "pushendpoint"), "endpoint"),
    **dict.fromkeys(("credentials", "auth"), "credential"),
    **dict.fromkeys(("p12", "pfx"), "pkcs12"),
    **dict.fromkeys(("os", "provider", "devicetype"), "platform"),
    **dict.fromkeys(("type", "credentialtype", "method"), "kind"),
}
"""What apps call a field, without case and underscores, and what the API calls it."""

PATTERNS: Final[Mapping[str, str]] = {
    NAME.pattern: "must be letters, digits and . _ - only, and begin with a letter or a digit",
    VISIBLE.pattern: "must be visible ASCII without spaces",
}
"""The words for each pattern of the models: a regular expression is no help to most."""
_UNDESCRIBED: Final = "has a form that docs/api.md does not describe"
_WORDS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "frozen_set_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "float_type": "must be a number",
    "finite_number": "must be a number",
}
_LIBRARY: Final = frozenset(get_args(ErrorType))
"""The faults that pydantic finds by itself, in its words; all others have ours."""
_PLACE: Final = re.compile(r" line ([0-9]+) column ([0-9]+)\Z", re.ASCII)
_QUOTED: Final = re.compile(r"'([^']*)'", re.ASCII)


def complaint(model: type[Strict], fault: ErrorDetails) -> tuple[str, str]:
    """Return (field as a path with dots, what is wrong)."""
    path = fault["loc"]
    if fault["type"] == "extra_forbidden":
        models, plain = _walk([model], path[:-1])
        name = str(path[-1])
        shown, text = _unknown(name, models)
        return _dotted((*plain, name) if shown else plain), text
    models, plain = _walk([model], path)
    if fault["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        tag = fault["ctx"]["discriminator"].strip("'")
        tags = {value for each in models for value in get_args(each.model_fields[tag].annotation)}
        return _dotted((*plain, tag)), f"must be one of {', '.join(sorted(tags))}"
    return _dotted(plain), _words(fault)


def _words(fault: ErrorDetails) -> str:
    """Return what is wrong with the value of a known field."""
    match fault["type"]:
        case "literal_error" | "enum":
            known = _QUOTED.findall(fault["ctx"]["expected"])
            return f"must be {'one of ' * (len(known) > 1)}{', '.join(known)}"
        case "too_long" | "too_short" | "string_too_long" | "string_too_short":
            return _of_length(fault["ctx"])
        case kind if kind not in _LIBRARY:
            return fault["msg"]
        case "string_pattern_mismatch":
            return PATTERNS.get(fault["ctx"]["pattern"], _UNDESCRIBED)
        case kind if kind.endswith("_type") and fault["input"] is None and fault["loc"]:
            return _WORDS["missing"]
        case kind:
            return _WORDS.get(kind, _UNDESCRIBED).format_map(fault.get("ctx", {}))


def _of_length(limits: Mapping[str, Any]) -> str:
    """Return how long a value must be, which is too long or too short."""
    unit = "entries" if limits.get("field_type") in {"Frozenset", "List"} else "characters"
    if "max_length" in limits:
        return f"must have at most {limits['max_length']} {unit}"
    return "must not be empty" if limits["min_length"] == 1 else f"must have at least {limits['min_length']} {unit}"


class _Members(list[tuple[str, Any]]):
    """The members of an object, in their order."""


def doubled(body: str) -> Iterator[tuple[str, str]]:
    """Yield (field as a path with dots, what is wrong) for each name that an object of valid JSON has twice.

    Of two such members readers take either one [RFC 8259 4], so what checks a body before the relay might see another
    value than the relay.
    """
    yield from _doubled(json.loads(body, object_pairs_hook=_Members, parse_int=str, parse_float=str), ())


def _doubled(value: Any, path: Path) -> Iterator[tuple[str, str]]:
    if isinstance(value, _Members):
        seen: set[str] = set()
        for name, inner in value:
            if name in seen:
                shown = WORD.fullmatch(name) is not None
                yield _dotted((*path, name) if shown else path), "stands here twice" if shown else "has a field twice"
            seen.add(name)
            yield from _doubled(inner, (*path, name if WORD.fullmatch(name) else "-"))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _doubled(inner, (*path, number))


def misread(fault: ErrorDetails) -> str:
    """Return what is wrong with a body that is no JSON."""
    place = _PLACE.search(fault["msg"])
    return "the body is not JSON in UTF-8" + ("" if place is None else f": see line {place[1]}, column {place[2]}")


def _walk(models: list[type[BaseModel]], path: Path) -> tuple[list[type[BaseModel]], Path]:
    """Return the models that a path leads to, and the path without the values by which pydantic chose a model."""
    plain: list[int | str] = []
    for step in path:
        chosen = [each for each in models if step in _choices(each)]
        if chosen:
            models = chosen
            continue
        plain.append(step)
        models = [inner for each in models for inner in _inside(_fields(each).get(str(step)))]
    return models, tuple(plain)


def _choices(model: type[BaseModel]) -> Iterator[object]:
    """Yield the values by which a union of models is told apart: those of fields that allow one value only."""
    for field in model.model_fields.values():
        if field.is_required() and get_origin(field.annotation) is Literal:
            yield from get_args(field.annotation)


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Return the types of a model's fields by their names in JSON."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in the type of a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _inside(part)


def _unknown(name: str, models: Iterable[type[BaseModel]]) -> tuple[bool, str]:
    """Return whether an unknown field may be named, and what to do about it."""
    models = list(models)
    known = sorted({field for each in models for field in _fields(each)})
    if any(name in each.unchangeable for each in models if issubclass(each, Strict)):
        return True, "never changes: leave it out"
    letters = _letters(name)
    same = [field for field in known if _letters(field) in {letters, OTHER_NAMES.get(letters)}]
    close = same or get_close_matches(letters, known, n=1, cutoff=0.75)
    advice = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}"
    shown = bool(same or WORD.fullmatch(name))
    return shown, f"is not known here: {advice}" if shown else f"has a field that is not known here: {advice}"


def _letters(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
