"""Core dumps are forbidden to processes that hold passwords and keys, whatever started them."""

import ctypes
import resource
from typing import Final

PR_SET_DUMPABLE: Final = 4  # prctl(2)


def forbid() -> None:
    """Let the kernel write no core dump of this process, and no process of the same user read its memory.

    The limit is for dumps into files. A program that takes dumps, as systemd-coredump does, is called whatever the
    limit is; it is not called for a process that is not dumpable [Linux: core(5), PR_SET_DUMPABLE].
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "core dumps cannot be forbidden")
