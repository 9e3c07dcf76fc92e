"""`python -m eas_watcher` starts the probe."""

import sys

from eas_watcher.tools.probe.arguments import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
