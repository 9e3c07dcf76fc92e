"""Own the making of the sealing keys' files."""

import os
from pathlib import Path

from relay.sealing import generate


class KeysExist(Exception):
    """Tell that a sealing key is there already; a new one would make every stored credential unreadable."""


def write_sealing_keys(private: Path, public: Path) -> None:
    """Make a key pair; the private file is readable by its owner only.

    Raises KeysExist when either file is there, OSError when one cannot be written.
    """
    for path in (private, public):
        if path.exists():
            raise KeysExist(f"{path} exists: stored credentials open with it alone. Move it away only to start anew.")
    private_pem, public_pem = generate()
    for path, content, mode in ((private, private_pem, 0o600), (public, public_pem, 0o644)):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
