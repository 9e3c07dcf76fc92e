"""Pushes for a simulator of Xcode: `xcrun simctl push` with the payload that APNs got.

The payload names its app as "Simulator Target Bundle", has the key `aps`, and 4096 bytes at most
[Apple: xcrun simctl help push].
"""

import asyncio
import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

TARGET: Final = "Simulator Target Bundle"


def simulator_payload(payload: Mapping[str, Any], bundle: str) -> str:
    """Return the JSON that `xcrun simctl push` takes."""
    return json.dumps({TARGET: bundle, **payload}, ensure_ascii=False)


def command_for(device: str, file: Path) -> list[str]:
    """Return the command that gives a push to a simulator: its UDID, its name, or `booted`."""
    return ["xcrun", "simctl", "push", device, str(file)]


class Simulator:
    """One simulator, and the folder for its pushes."""

    def __init__(self, device: str, bundle: str, folder: Path) -> None:
        """Set up; the folder is made with the first push."""
        self._device = device
        self._bundle = bundle
        self._folder = folder
        self._count = 0

    async def push(self, payload: Mapping[str, Any]) -> str:
        """Write a push and give it to the simulator; return what was done, or the command to run where Xcode is."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._count += 1
        file = self._folder / f"{self._count:04}.apns"
        file.write_text(simulator_payload(payload, self._bundle), encoding="utf-8")
        command = command_for(self._device, file)
        if shutil.which(command[0]) is None:
            return f"no Xcode here; where it is: {shlex.join(command)}"
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        status = await process.wait()
        return f"given to the simulator {self._device}" if status == 0 else f"simctl failed with status {status}"
