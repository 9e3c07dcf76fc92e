"""The program `python -m relay`."""

from relay.cli.main import main

main()
