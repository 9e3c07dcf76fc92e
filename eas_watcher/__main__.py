"""Own what `python -m eas_watcher` does."""

import sys

from eas_watcher.tools.probe.arguments import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
