"""Own the public names of the simulated EAS server."""

from relay.sandbox.eas.control import control_app
from relay.sandbox.eas.failures import AnswerHttp, AnswerStatus, Crash, Cut, Delay, FailurePlan, Garble, Stall
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.personality import Family
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator, UnknownMailbox

__all__ = [
    "FAMILIES",
    "AnswerHttp",
    "AnswerStatus",
    "Crash",
    "Cut",
    "Delay",
    "EasRules",
    "EasSimulator",
    "FailurePlan",
    "Family",
    "Garble",
    "Stall",
    "UnknownMailbox",
    "control_app",
    "open_eas_simulator",
]
