"""Checks of [webapp]: the addresses of the relay's own web app, and the logo that it shows."""

from codecs import BOM_UTF8
from typing import Final

from relay.domain.model import Role
from relay.push.payload import WebAppPages
from relay.settings.files import Files
from relay.settings.sections import WebAppSection
from relay.settings.source import Sections
from relay.settings.values import Logo, WebAppSettings

TABLE: Final = "webapp"
TAKEN: Final = frozenset({"/v1", "/problems"})
"""Paths that the registration API has beside it."""
LARGEST: Final = 200_000  # bytes; a phone outside loads it over its network
PNG: Final = b"\x89PNG\r\n\x1a\n"
BEGINNING: Final = 4_096  # bytes of an SVG in which it begins: declaration, comments and document type come before


def webapp_settings(sections: Sections, files: Files, role: Role) -> WebAppSettings | None:
    """Return the web app, for roles that serve it or push to it, None if it is off; faults go to `files.faults`."""
    section, faults = sections.read(TABLE, WebAppSection, files.faults), files.faults
    if not section.enabled or role is Role.WATCH:
        return None
    if "webpush" not in sections.tables:
        remedy = "Add a table [webpush], with the words of browsers in hosts: the web app gets its pushes by WebPush."
        faults.add("webapp.enabled", "needs WebPush, which is not set up", remedy)
    if section.base_path in TAKEN:
        faults.add("webapp.base_path", f"is {section.base_path}, which the API uses", "Choose another path, as /app.")
    logo = None if section.logo_file is None else _logo(files, section.logo_file)
    mail = section.open_url
    if mail is not None and not _is_page(mail):
        remedy = "Write an https:// address with a host in small letters, a path, and no ?, # or %."
        faults.add("webapp.open_url", "is no plain https:// address", remedy)
        mail = None
    remedy = "Write https://HOST or https://HOST:PORT, as browsers reach the API."
    if not faults.require("webapp.origin", section.origin, remedy) or section.origin is None:
        return None
    origin = section.origin.rstrip("/").lower()
    own = f"{origin}{section.base_path}/"
    if not _is_page(own) or origin.count("/") != 2:  # noqa: PLR2004 -- those of https://
        faults.add("webapp.origin", "is no https:// address of host and port alone", remedy)
        return None
    pages = WebAppPages(own, mail or own)
    return WebAppSettings(origin, section.base_path, section.title, section.help_text or "", pages, logo)


def _is_page(address: str) -> bool:
    try:
        WebAppPages(address, address)
    except ValueError:
        return False
    return True


def _logo(files: Files, name: str) -> Logo | None:
    path = files.path(name)
    content = files.read("webapp.logo_file", path, secret=False)
    if content is None:
        return None
    beginning = content[:BEGINNING].removeprefix(BOM_UTF8).lstrip()
    is_svg = beginning.startswith(b"<") and b"<svg" in beginning
    media_type = "image/png" if content.startswith(PNG) else "image/svg+xml" if is_svg else None
    if media_type is None or len(content) > LARGEST:
        files.faults.add("webapp.logo_file", f"{path} is no PNG or SVG of at most 200 kB", "Give a smaller PNG or SVG.")
        return None
    return Logo(content, media_type)
