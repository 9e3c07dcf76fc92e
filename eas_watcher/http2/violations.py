"""The error codes of HTTP/2, and the exception for what a server must not do."""

from enum import IntEnum


class ErrorCode(IntEnum):
    """Why a stream or a connection ends [RFC 9113 7]."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Violation(Exception):
    """The server broke HTTP/2 or a limit of ours; what it concerns, a stream or the connection, ends with `code`."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Malformed(Violation):
    """One answer breaks HTTP/2; others are not concerned [RFC 9113 8.1.1]."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.PROTOCOL_ERROR, text)


def error_name(code: int) -> str:
    """Return the name of an error code, or the number of an unknown one."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return str(code)
