"""The requests that reached the server, from nginx's log."""

from dataclasses import dataclass
from pathlib import Path
from re import compile as pattern
from typing import Final
from urllib.parse import parse_qs, urlsplit

# client, identity, user of the Authorization header, [time], "request line", status [nginx: log_format combined]
LINE: Final = pattern(
    r'\S+ - (?P<user>\S+) \[[^]]*\] "(?P<method>[A-Z]+) (?P<target>\S+) (?P<version>[^"]*)" (?P<status>\d{3}) '
)


@dataclass(frozen=True, slots=True)
class Request:
    """One answered request: `command` is the ActiveSync command, or the method where there is none."""

    user: str
    command: str
    status: int
    version: str = ""
    """The version of HTTP, e.g. "HTTP/2.0"."""


def read_requests(log: Path, path: str) -> list[Request]:
    """Return the requests for a path in the order of their answers, without those that are still held."""
    requests = []
    for line in log.read_text(errors="replace").splitlines():
        found = LINE.match(line)
        if found is None or urlsplit(found["target"]).path != path:
            continue
        named = parse_qs(urlsplit(found["target"]).query).get("Cmd", [found["method"]])
        requests.append(Request(found["user"], named[0], int(found["status"]), found["version"]))
    return requests
