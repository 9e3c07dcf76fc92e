"""Autodiscover version 1 for phones: request and answer in XML, sent with the credential [MS-ASCMD 2.2.1.1].

Elements are recognised by their local names, because servers use different namespaces [observed: Exchange 2010].
"""

from dataclasses import dataclass, field
from html import escape
from types import MappingProxyType
from typing import Final
from xml.parsers import expat

from eas_watcher.errors import ProtocolViolation

REQUEST_SCHEMA: Final = "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/requestschema/2006"
RESPONSE_SCHEMA: Final = "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"
LARGEST: Final = 65536  # bytes; answers have about 1,000
DEEPEST: Final = 16  # nested elements; answers have six

SERVER: Final = ("Autodiscover", "Response", "Action", "Settings", "Server")
REDIRECT: Final = ("Autodiscover", "Response", "Action", "Redirect")
ERROR: Final = ("Autodiscover", "Response", "Error", "ErrorCode")
STATUS: Final = ("Autodiscover", "Response", "Action", "Error", "Status")
ERRORS: Final = MappingProxyType(
    {
        ("ErrorCode", "600"): "it calls the request invalid (error 600)",
        ("ErrorCode", "601"): "it knows no phones, perhaps Outlook only (error 601)",
        ("Status", "2"): "it calls the request malformed (status 2)",
    }
)
"""Element and number -> the cause, in an answer that names no server [MS-ASCMD 2.2.3.53, 2.2.3.177.1]."""


@dataclass(frozen=True, slots=True)
class PoxReply:
    """What an answer names: the ActiveSync URL, or another address to ask for; neither: the host does not know."""

    url: str | None = None
    address: str | None = None
    error: str = ""
    """The cause when it names neither, in our words."""


def question(host: str) -> str:
    """Return the URL of the question at `host` (with its port, unless it is 443)."""
    return f"https://{host}/autodiscover/autodiscover.xml"


def request(address: str) -> bytes:
    """Return the body that asks for the server of an address."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<Autodiscover xmlns="{REQUEST_SCHEMA}"><Request><EMailAddress>{escape(address, quote=False)}</EMailAddress>'
        f"<AcceptableResponseSchema>{RESPONSE_SCHEMA}</AcceptableResponseSchema></Request></Autodiscover>"
    ).encode()


def read(body: bytes) -> PoxReply:
    """Read an answer; raises ProtocolViolation if it is not XML, is too large, or declares a document type."""
    if len(body) > LARGEST:
        raise ProtocolViolation("the Autodiscover answer is larger than 64 KiB")
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse  # entities need a document type
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(body, True)  # noqa: FBT003 -- it takes no keyword: the document is complete
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: encodings
        raise ProtocolViolation("the Autodiscover answer is not XML") from error
    return PoxReply(reader.url, reader.address, "" if reader.url or reader.address else reader.error)


@dataclass(slots=True)
class _Reader:
    """The parser's handlers; they keep the values of the elements above."""

    url: str | None = None
    address: str | None = None
    error: str = ""
    path: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    server: dict[str, str] = field(default_factory=dict)

    def refuse(self, *_: object) -> None:
        raise ProtocolViolation("the Autodiscover answer declares a document type")

    def start(self, name: str, _: dict[str, str]) -> None:
        self.path.append(name.rpartition(" ")[2])
        self.texts.clear()
        if len(self.path) > DEEPEST:
            raise ProtocolViolation("the Autodiscover answer is nested too deeply")
        if tuple(self.path) == SERVER:
            self.server.clear()

    def text(self, text: str) -> None:
        self.texts.append(text)

    def end(self, _: str) -> None:
        path, text = tuple(self.path), "".join(self.texts).strip()
        if path[:-1] == SERVER:
            self.server[path[-1]] = text
        elif path == SERVER and self.server.get("Type", "").lower() == "mobilesync" and self.url is None:
            self.url = self.server.get("Url") or None
        elif path == REDIRECT:
            self.address = text or None
        elif path in {ERROR, STATUS}:
            self.error = ERRORS.get((path[-1], text), "it answers with an error of its own")
        self.path.pop()
        self.texts.clear()
