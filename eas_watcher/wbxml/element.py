"""Own the tree that WBXML stands for: elements with a page, a tag, children and text."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from eas_watcher.errors import ProtocolViolation


@dataclass(frozen=True, slots=True)
class Element:
    """Hold one element. Its repr shows no text, for text may be content."""

    page: str
    """The name of the code page, which is the element's namespace, e.g. "AirSync"."""
    tag: str
    children: tuple["Element", ...] = ()
    text: str | bytes = field(default="", repr=False)
    """Text; bytes when it came as OPAQUE, or is not UTF-8, which matters only to whoever needs it as a string."""

    def find(self, tag: str, page: str | None = None) -> "Element | None":
        """Return the first child of that name; without `page` in the page of this element."""
        return next(self.all(tag, page), None)

    def all(self, tag: str, page: str | None = None) -> "Iterator[Element]":
        """Yield the children of that name, in order; without `page` in the page of this element."""
        page = page or self.page
        return (child for child in self.children if child.tag == tag and child.page == page)

    @property
    def string(self) -> str:
        """Return the text as a string; OPAQUE reads as UTF-8. Raises ProtocolViolation when it is no text."""
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
    """Build elements of one page: `AIRSYNC("SyncKey", "0")`, `AIRSYNC("Sync", AIRSYNC("Collections", ...))`."""

    name: str

    def __call__(self, tag: str, *content: Element | str | bytes) -> Element:
        """Build an element of text or of children; nothing makes it empty."""
        children = tuple(part for part in content if isinstance(part, Element))
        texts = [part for part in content if not isinstance(part, Element)]
        if not texts:
            return Element(self.name, tag, children)
        if len(texts) > 1 or children:
            raise ValueError(f"{self.name}:{tag} takes one text or children")
        return Element(self.name, tag, text=texts[0])


AIRSYNC = Page("AirSync")
AIRSYNCBASE = Page("AirSyncBase")
FOLDERHIERARCHY = Page("FolderHierarchy")
PING = Page("Ping")
PROVISION = Page("Provision")
SETTINGS = Page("Settings")
