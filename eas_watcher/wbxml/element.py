"""The tree that a WBXML document encodes: elements with a page, a tag, children and text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from eas_watcher.errors import ProtocolViolation


class Element(NamedTuple):
    """One element. Its repr shows no text, because text may be mail content."""

    page: str
    """The name of the code page, which is the element's namespace, e.g. "AirSync"."""
    tag: str
    children: tuple["Element", ...] = ()
    text: str | bytes = ""
    """Text; bytes if it came as OPAQUE, is not UTF-8 or holds a NUL, which `string` checks."""

    def __repr__(self) -> str:
        """Return the names alone."""
        return f"Element(page={self.page!r}, tag={self.tag!r}, children={self.children!r})"

    def find(self, tag: str, page: str | None = None) -> "Element | None":
        """Return the first child of that name, on `page` or by default on the page of this element."""
        page = page or self.page
        for child in self.children:
            if child.tag == tag and child.page == page:
                return child
        return None

    def all(self, tag: str, page: str | None = None) -> "Iterator[Element]":
        """Yield the children of that name in order, on `page` or by default on the page of this element."""
        page = page or self.page
        return (child for child in self.children if child.tag == tag and child.page == page)

    @property
    def string(self) -> str:
        """The text as a string; OPAQUE is read as UTF-8. Raises ProtocolViolation when it is not text."""
        if isinstance(self.text, str):
            return self.text
        try:
            text = self.text.decode()
        except UnicodeDecodeError:
            raise ProtocolViolation(f"{self.page}:{self.tag} is not UTF-8") from None
        if "\0" in text:
            raise ProtocolViolation(f"{self.page}:{self.tag} holds a NUL")
        return text


@dataclass(frozen=True, slots=True)
class Page:
    """Builds elements of one page: `AIRSYNC("SyncKey", "0")`, `AIRSYNC("Sync", AIRSYNC("Collections", ...))`."""

    name: str

    def __call__(self, tag: str, *content: Element | str | bytes) -> Element:
        """Return an element with a text or with children; without content it is empty."""
        if len(content) == 1 and not isinstance(content[0], Element):  # most elements
            return Element(self.name, tag, text=content[0])
        children = tuple(part for part in content if isinstance(part, Element))
        if len(children) < len(content):
            raise ValueError(f"{self.name}:{tag} takes one text or children")
        return Element(self.name, tag, children)


AIRSYNC = Page("AirSync")
AIRSYNCBASE = Page("AirSyncBase")
FOLDERHIERARCHY = Page("FolderHierarchy")
PING = Page("Ping")
PROVISION = Page("Provision")
SETTINGS = Page("Settings")
