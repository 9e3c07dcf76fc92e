"""Frames in what a client wrote, read without the code under test."""

from collections.abc import Sequence

from eas_watcher.http2.frames import PREFACE, Frame


def frames_of(written: bytes | Sequence[bytes]) -> list[Frame]:
    """Return kind, flags, stream and payload of all frames; the preface is none of them."""
    data = (written if isinstance(written, bytes) else b"".join(written)).removeprefix(PREFACE)
    found: list[Frame] = []
    while data:
        end = 9 + int.from_bytes(data[:3])
        assert len(data) >= end, "every frame is written whole"
        found.append((data[3], data[4], int.from_bytes(data[5:9]), data[9:end]))
        data = data[end:]
    return found
