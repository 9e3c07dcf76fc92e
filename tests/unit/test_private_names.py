"""The private and undocumented names of libraries that the relay uses, and a search that finds every other one.

A library may change such a name in any release. So each stands in REGISTER with the form that the relay relies on, and
its package has an upper bound in pyproject.toml. After raising a bound, run this file: what it says names what to mend.
"""

import ast
import asyncio
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.foreign_names import PACKAGES, ROOT, classes, in_class, in_source

# --- the register


@dataclass(frozen=True)
class Use:
    """One name of a library that is private, or public but not in the library's documentation."""

    package: str
    """The distribution that brings it, as pyproject.toml names it."""
    owner: str
    """The class or module, with dots."""
    name: str
    holds: Callable[[Any], bool]
    """Returns True if the owner still has the name in the form that the user relies on."""
    user: str
    """Our module, as a path."""
    why: str

    @property
    def broken(self) -> bool:
        """True if the library has changed the name."""
        try:
            return not self.holds(find(self.owner))
        except (AttributeError, ImportError, TypeError, ValueError):
            return True

    @property
    def complaint(self) -> str:
        """A sentence for the developer who has raised the upper bound."""
        return (
            f"{self.package} {version(self.package)} no longer has {self.owner}.{self.name} in the form on which "
            f"{self.user} relies to {self.why}"
        )


def find(dotted: str) -> Any:
    """Import a module or a class; raises ImportError, AttributeError."""
    try:
        return import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return getattr(import_module(module), name)


def accepts(function: Callable[..., Any], *parameters: str) -> bool:
    """Return True if a function has these parameters: positional ones first and in this order, or keyword-only ones."""
    found = inspect.signature(function).parameters.values()
    keywords = {each.name for each in found if each.kind is each.KEYWORD_ONLY}
    positional = [each.name for each in found if each.name not in {*keywords, "self"}]
    wanted = [each for each in parameters if each not in keywords]
    return positional[: len(wanted)] == wanted


def parameters(function: Callable[..., Any]) -> set[str]:
    """Return the names of a function's parameters."""
    return set(inspect.signature(function).parameters)


def has_property(name: str) -> Callable[[Any], bool]:
    """Check that a class has a property."""
    return lambda it: isinstance(inspect.getattr_static(it, name), property)


Name = tuple[str, Callable[[Any], bool], str]


def uses(package: str, owner: str, user: str, *names: Name) -> Iterator[Use]:
    """Make the entries for one class or module of a library that one module of ours uses."""
    return (Use(package, owner, name, holds, user, why) for name, holds, why in names)


SANDBOX = "relay/sandbox/apns_connection.py"
POSTING = "relay/network/posting.py"
ACCOUNT = "relay/push/fcm/account.py"
LISTENERS = "relay/http/listeners.py"
CONNECTION = "h2.connection.H2Connection"
HANDLER = "aiohttp.client_proto.ResponseHandler"

REGISTER = (
    # aioapns documents the names of its root only.
    *uses(
        "aioapns",
        "aioapns.connection.JWTAuthorizationHeaderProvider",
        "relay/push/apns/accounts.py",
        ("__init__", lambda it: accepts(it.__init__, "key", "key_id", "team_id"), "sign provider tokens"),
        ("get_header", lambda it: accepts(it.get_header), "sign provider tokens"),
    ),
    *uses(
        "aioapns",
        "aioapns.common.NotificationResult",
        "relay/push/apns/connection.py",
        (
            "__init__",
            lambda it: accepts(it.__init__, "notification_id", "status", "description", "timestamp"),
            "put an answer together",
        ),
    ),
    # pyfcm documents how to send, not how to make what is sent.
    *uses(
        "pyfcm",
        "pyfcm.FCMNotification",
        ACCOUNT,
        ("FCM_END_POINT_BASE", lambda it: it.FCM_END_POINT_BASE.endswith("/v1/projects"), "send to the configured URL"),
        ("fcm_end_point", has_property("fcm_end_point"), "know the URL for pushes of a project"),
        (
            "parse_payload",
            lambda it: {"fcm_token", "data_payload", "android_config"} <= parameters(it.parse_payload),
            "write the body of a push",
        ),
    ),
    # aiohttp's client: its documented session adds work to each POST that costs as much again as all the rest.
    *uses(
        "aiohttp",
        HANDLER,
        POSTING,
        ("__init__", lambda it: accepts(it.__init__, "loop"), "read the answers of a connection"),
        (
            "set_response_params",
            lambda it: accepts(it.set_response_params, "read_until_eof", "auto_decompress"),
            "begin to read an answer",
        ),
        ("feed_data", lambda it: accepts(it.feed_data, "data", "size"), "count the answers to a request"),
        ("data_received", lambda it: accepts(it.data_received, "data"), "parse few bytes at once"),
        ("read", lambda it: inspect.iscoroutinefunction(it.read) and accepts(it.read), "wait for an answer"),
        ("should_close", has_property("should_close"), "know whether a connection can be used again"),
        ("is_connected", lambda it: accepts(it.is_connected), "know whether a connection can be used again"),
        ("close", lambda it: accepts(it.close), "close an idle connection"),
        ("abort", lambda it: accepts(it.abort), "cut a connection"),
        ("closed", has_property("closed"), "wait for the end of a connection"),
        ("transport", lambda it: hasattr(it, "transport"), "write a request"),
    ),
    *uses(
        "aiohttp",
        "aiohttp.http_parser",
        POSTING,
        ("RawResponseMessage", lambda it: hasattr(it, "RawResponseMessage"), "name the type of an answer"),
    ),
    *uses(
        "aiohttp",
        "aiohttp.http_exceptions",
        POSTING,
        (
            "HttpProcessingError",
            lambda it: issubclass(it.HttpProcessingError, Exception),
            "report bytes that are no HTTP",
        ),
    ),
    # aiohttp's server: by itself it repeats bytes that it cannot read, in answers and in the log.
    *uses(
        "aiohttp",
        "aiohttp.web.RequestHandler",
        LISTENERS,
        ("__init__", lambda it: accepts(it.__init__, "manager", "loop"), "serve a connection"),
        ("connection_made", lambda it: accepts(it.connection_made, "transport"), "count connections"),
        ("connection_lost", lambda it: accepts(it.connection_lost, "exc"), "end the wait for a request"),
        ("force_close", lambda it: accepts(it.force_close), "cut a connection"),
        ("data_received", lambda it: accepts(it.data_received, "data"), "read no more of a request than allowed"),
        (
            "handle_error",
            lambda it: accepts(it.handle_error, "request", "status", "exc", "message"),
            "answer bytes that are no HTTP without repeating them",
        ),
        (
            "finish_response",
            lambda it: accepts(it.finish_response, "request", "resp", "start_time"),
            "replace aiohttp's own refusals",
        ),
        ("log_exception", lambda it: {"args", "kw"} <= parameters(it.log_exception), "log no text of an error"),
    ),
    *uses(
        "aiohttp",
        "aiohttp.web.BaseRequest",
        LISTENERS,
        ("protocol", has_property("protocol"), "know the connection of a request"),
        ("writer", has_property("writer"), "know whether an answer has begun"),
    ),
    *uses(
        "aiohttp",
        "aiohttp.web_response.StreamResponse",
        LISTENERS,
        (
            "_prepare_headers",
            lambda it: inspect.iscoroutinefunction(it._prepare_headers) and accepts(it._prepare_headers),
            "answer bytes that are no HTTP without naming the server",
        ),
    ),
    *uses(
        "aiohttp",
        "aiohttp.http_writer.StreamWriter",
        LISTENERS,
        ("output_size", lambda it: isinstance(it.output_size, int), "know whether an answer has begun"),
    ),
)


@pytest.mark.parametrize("use", REGISTER, ids=lambda use: f"{use.owner}.{use.name}")
def test_a_registered_name_still_has_the_form_that_is_relied_on(use: Use) -> None:
    assert not use.broken, use.complaint


def test_a_name_that_a_library_gave_up_is_reported_in_a_sentence() -> None:
    gone = Use("h2", CONNECTION, "_gone", lambda it: callable(it._gone), SANDBOX, "forget a stream")
    changed = Use("aiohttp", HANDLER, "read", lambda it: accepts(it.read, "limit"), POSTING, "wait for an answer")
    moved = Use("h2", "h2.nowhere.H2Connection", "streams", bool, SANDBOX, "add a stream")

    assert (gone.broken, changed.broken, moved.broken) == (True, True, True)
    assert gone.complaint == (
        f"h2 {version('h2')} no longer has h2.connection.H2Connection._gone in the form on which "
        "relay/sandbox/apns_connection.py relies to forget a stream"
    )


@pytest.mark.parametrize("package", sorted({use.package for use in REGISTER}))
def test_the_package_of_a_registered_name_has_an_upper_bound(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (requirement,) = [each for each in project["dependencies"] if re.split(r"[<>=\[ ]", each)[0] == package]

    assert "<" in requirement, f"{package} may change private names in any release: give it an upper bound"


@pytest.mark.parametrize("use", REGISTER, ids=lambda use: f"{use.owner}.{use.name}")
def test_a_registered_name_is_in_use(use: Use) -> None:
    text = (ROOT / use.user).read_text()
    used = use.owner.rpartition(".")[2] if use.name == "__init__" else use.name

    assert re.search(rf"\b{used}\b", text), f"{use.user} no longer uses {use.owner}.{use.name}: remove it from REGISTER"


# --- the search


def registered(found: str, user: str) -> bool:
    """Return True if the register has a name for this user of it, or anything of a module."""
    name = found.rpartition(".")[2]
    return any((use.user, use.name) == (user, name) or f"{use.owner}.".startswith(f"{found}.") for use in REGISTER)


def complain(found: str, user: str) -> str:
    return (
        f"{user}: {found} is private, or public but undocumented: do without it, or add it to REGISTER in "
        "tests/unit/test_private_names.py with the reason, and give its package an upper bound in pyproject.toml"
    )


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_private_name_is_used(package: str) -> None:
    for file in sorted((ROOT / package).rglob("*.py")):
        user = str(file.relative_to(ROOT))
        for found in in_source(ast.parse(file.read_text())):
            assert registered(found, user), complain(found, user)


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_private_name_is_used_or_overridden_in_a_class_of_a_library(package: str) -> None:
    for kind in classes(package):
        user = f"{kind.__module__.replace('.', '/')}.py"
        for found in in_class(kind):
            assert registered(found, user), complain(found, user)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("session._retry_connection = False", ["session._retry_connection"]),
        ("class A:\n def b(self): self._c._d()", ["self._c._d"]),
        ("getattr(connection, '_data_to_send')", ["getattr(connection, '_data_to_send')"]),
        ("from h2.connection import _secret", ["h2.connection._secret"]),
        ("from google.auth.crypt._cryptography_rsa import RSASigner", ["google.auth.crypt._cryptography_rsa"]),
        ("from h2.stream import H2Stream", ["h2.stream"]),
        ("import aiohttp.client_reqrep", ["aiohttp.client_reqrep"]),
        ("if TYPE_CHECKING:\n from aiohttp.tracing import Trace", []),
        ("class A:\n def __init__(self): self._b = 1\n def __eq__(self, other): return other._b == self._b", []),
        ("def same(other): return other._b", ["other._b"]),
        ("self._own(); cls._own(); row._mapping; pair._replace(a=1); x.__dict__", []),
        ("from relay.api.problems import _own\nfrom __future__ import annotations", []),
    ],
)
def test_the_search_finds_private_names_in_source(source: str, found: list[str]) -> None:
    assert list(in_source(ast.parse(source))) == found


class Overrides(aiohttp.BaseConnector):
    _cleanup_closed_period = 1.0

    async def _create_connection(self, *_: object) -> Any:
        raise NotImplementedError


class Reaches(web.RequestHandler):
    __slots__ = ("_mine",)

    def late(self) -> float:
        self._mine = self._next_keepalive_close_time
        return self._mine

    def log_debug(self, *_: object, **__: object) -> None:
        pass


class Clashes(asyncio.Semaphore):
    def __init__(self) -> None:
        super().__init__()
        self._value = 1


class Clean(asyncio.Protocol):
    def __init__(self) -> None:
        self._mine = 1

    def data_received(self, data: bytes) -> None:
        self._mine += len(data)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (
            Overrides,
            [
                "aiohttp.connector.BaseConnector._cleanup_closed_period",
                "aiohttp.connector.BaseConnector._create_connection",
            ],
        ),
        (Reaches, ["self._next_keepalive_close_time", "aiohttp.web_protocol.RequestHandler.log_debug"]),
        (Clashes, ["asyncio.locks.Semaphore._value"]),
        (Clean, []),
    ],
)
def test_the_search_finds_private_names_in_classes_of_libraries(kind: type, found: list[str]) -> None:
    assert list(in_class(kind)) == found
