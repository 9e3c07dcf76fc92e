"""A program for any Python that has the relay: reads WBXML documents, and prints a digest of what it read.

Its argument is the file of the golden vectors; they are read as they are, and with pieces of others put in.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final

from eas_watcher.errors import ProtocolViolation
from eas_watcher.wbxml.decode import decode

SPLICES: Final = 300  # of each document
PIECE: Final = 24  # octets at most


def outcome(body: bytes, *, sparse: bool) -> str:
    """Return the tree of a document in words, or why it has none."""
    try:
        return repr(decode(body, sparse=sparse))
    except ProtocolViolation as error:
        return str(error)


def digest(documents: list[bytes]) -> str:
    """Return the digest of all outcomes."""
    random, said = Random(1), sha256()
    for document in documents:
        bodies = [document]
        for _ in range(SPLICES):
            other = random.choice(documents)
            at, start = random.randrange(len(document) + 1), random.randrange(len(other) + 1)
            piece = other[start : start + random.randint(0, PIECE)]
            bodies.append(document[:at] + piece + document[at + random.randint(0, PIECE) :])
        for body in bodies:
            for sparse in (False, True):
                said.update(outcome(body, sparse=sparse).encode())
    return said.hexdigest()


if __name__ == "__main__":
    vectors = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stdout.write(digest([bytes.fromhex(vector["hex"]) for vector in vectors]) + "\n")
