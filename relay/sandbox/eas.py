"""Own the public names of the simulated EAS server."""

from relay.sandbox.eas_control import control_app
from relay.sandbox.eas_failures import AnswerHttp, AnswerStatus, Cut, Delay, FailurePlan, Garble, Stall
from relay.sandbox.eas_rules import EasRules
from relay.sandbox.eas_server import open_eas_simulator
from relay.sandbox.eas_simulator import EasSimulator, UnknownMailbox

__all__ = [
    "AnswerHttp",
    "AnswerStatus",
    "Cut",
    "Delay",
    "EasRules",
    "EasSimulator",
    "FailurePlan",
    "Garble",
    "Stall",
    "UnknownMailbox",
    "control_app",
    "open_eas_simulator",
]
