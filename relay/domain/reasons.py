"""The reasons of mailboxes as the database keeps them."""

from eas_watcher.reasons import Reason


def write_reason(reason: Reason | None) -> str:
    """Return the text that the database keeps; empty for no reason."""
    return "" if reason is None else reason.value


def read_reason(text: str) -> Reason | None:
    """Return the reason that a stored text stands for, None for an empty one.

    A text that this version does not know, since a newer version wrote it, is read as UNKNOWN.
    """
    if not text:
        return None
    try:
        return Reason(text)
    except ValueError:
        return Reason.UNKNOWN


def read_detail(text: str, detail: str) -> str:
    """Return the stored detail of a reason; for an unknown one it begins with the text of the reason."""
    if read_reason(text) is not Reason.UNKNOWN:
        return detail
    unknown = f"{text}, a reason that this version of the relay does not know"
    return f"{unknown}: {detail}" if detail else unknown
