"""Which relay.toml a command reads: the one that the command line or the environment names, else the host's."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from relay.cli.output import FAULTY, fail

VARIABLE: Final = "RELAY_CONFIG"
DEFAULT: Final = Path("config/relay.toml")
"""The settings of a folder in which somebody tries the relay; the value of the option until `_chosen` replaces it."""
PLACES: Final = (Path("/etc/push-relay/relay.toml"), DEFAULT)
"""Where a command looks if nobody names a file, in this order."""


def default_config(environ: Mapping[str, str] = os.environ, places: Sequence[Path] = PLACES) -> Path:
    """Return the relay.toml of a command that names none; end the command if there is none.

    A file in a folder that this user may not enter counts as found: its settings are meant, and reading them says which
    right is missing.
    """
    from relay.settings.contents import missing  # noqa: PLC0415 -- a command loads what it needs when it runs

    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    found = next((place for place in places if not missing(place)), None)
    if found is None:
        looked = " and ".join(str(place.absolute()) for place in places)
        remedy = f"Name it with --config or in {VARIABLE}, or write one with `relay init`."
        fail(f"there is no relay.toml: looked for {looked}. {remedy}", FAULTY)
    return found


def _chosen(context: typer.Context, parameter: typer.CallbackParam, value: Path) -> Path:
    """Return the file that the option names, or the default one."""
    source = context.get_parameter_source(parameter.name or "")
    named = source is not None and source.name != "DEFAULT"
    return value if named or context.resilient_parsing else default_config()


Config = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        help="The relay.toml to read.",
        show_default=f"{VARIABLE}, {', '.join(map(str, PLACES))}",
        callback=_chosen,
        readable=False,  # not judged here: reading the settings says which right is missing, and who may give it
    ),
]
