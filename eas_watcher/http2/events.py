"""What an HTTP/2 connection reports: values made from the frames of the server."""

from typing import Generic, NamedTuple, TypeAlias, TypeVar

from eas_watcher.http2.header_block import Header

Owner = TypeVar("Owner")


class Answered(NamedTuple, Generic[Owner]):
    """A whole answer."""

    stream_id: int
    owner: Owner
    """What the request was sent with."""
    status: int
    headers: tuple[Header, ...]
    """Without the status, names in lower case, in the server's order."""
    body: bytes


class Failed(NamedTuple, Generic[Owner]):
    """A request ended without an answer; its stream is over, others are not concerned."""

    stream_id: int
    owner: Owner
    code: int
    """Why, as an error code of HTTP/2, which need not be one that we know."""
    text: str
    """What the server did that it may not; empty: it reset the stream, or leaves it out as it goes away."""
    unprocessed: bool
    """True if the server did nothing with the request, so that it may be sent again."""


class Settled(NamedTuple):
    """The server's settings came, for the first time or changed: more or fewer streams, or larger windows."""


class Widened(NamedTuple):
    """The server takes more octets on the connection."""


class GoneAway(NamedTuple):
    """The server takes no new stream; it answers those up to `last`, or hangs up (a code but 0)."""

    code: int
    last: int


class Broken(NamedTuple):
    """The server broke HTTP/2 or a limit: the connection is over, with our GOAWAY to send. The last event."""

    code: int
    text: str
    flooded: str = ""
    """The kind of frames that the server sent too many of; empty: another fault."""


Event: TypeAlias = Answered[Owner] | Failed[Owner] | Settled | Widened | GoneAway | Broken
