"""The command `python -m eas_watcher.tools.statuses`, which prints the document of all statuses."""

import sys

from eas_watcher.tools.statuses.document import write

if __name__ == "__main__":
    sys.stdout.write(write())
