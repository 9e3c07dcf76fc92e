"""The golden vectors: WBXML documents with the trees that they encode."""

import json
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from eas_watcher.wbxml.element import Element

PATH = Path(__file__).parents[3] / "vectors" / "wbxml-vectors.json"


@dataclass(frozen=True)
class Vector:
    name: str
    kind: str
    body: bytes
    xml: str | None

    @property
    def tree(self) -> Element:
        assert self.xml is not None
        return _read(ET.fromstring(self.xml))  # noqa: S314 -- a file of this repository


def _read(node: ET.Element) -> Element:
    page, tag = node.tag.removeprefix("{").split("}")
    text = node.text or ""
    return Element(page, tag, tuple(map(_read, node)), b64decode(text) if node.get("opaque") == "base64" else text)


VECTORS = tuple(
    Vector(entry["name"], entry["kind"], bytes.fromhex(entry["hex"]), entry["xml"])
    for entry in json.loads(PATH.read_text(encoding="utf-8"))
)


def body_of(name: str) -> bytes:
    """Return the bytes of one vector."""
    return next(vector.body for vector in VECTORS if vector.name == name)


def of_kind(*kinds: str) -> list[Vector]:
    """Return the vectors of some kinds."""
    return [vector for vector in VECTORS if vector.kind in kinds]
