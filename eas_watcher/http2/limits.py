"""The limits that an HTTP/2 connection sets to its server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server may send, in octets."""

    body: int = 262_144
    """Of one answer's body, where its request gives no other limit; also the window of each stream."""
    headers: int = 65_536
    """Of one list of headers, as HTTP/2 counts them; a header block may not be longer either."""
    kept: int = 33_554_432
    """Of all bodies on the connection that are not whole yet."""
    window: int = 1_048_576
    """What may be on its way on the connection; at least 65,535."""
    errors_whole: bool = True
    """False: the body of an answer with another status than 200 is left out where it is longer than its limit; True:
    then the request fails."""
