"""The Python client as an app team gets it: a package of its own, which needs nothing of the relay."""

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "clients/python"
PROGRAM = """
import sys
from push_relay_client import Apns, Basic, Wish, read_push
assert read_push({"relay": {"registration": "r", "kind": "test"}}).registration == "r"
assert Wish("ann@example.com", Basic("x"), Apns("app", "00")).body()["device"]["token"] == "00"
print([name for name in sys.modules if name.split(".")[0] in ("relay", "eas_watcher", "tests")])
"""


def test_the_package_can_be_installed_and_used_alone(tmp_path: Path) -> None:
    source = shutil.copytree(PACKAGE, tmp_path / "source")  # a build leaves folders beside its sources
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(source))
    subprocess.run(pip, check=True, cwd=tmp_path)

    environ = {"PATH": "/usr/bin:/bin"}
    command = (sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PROGRAM}")
    said = subprocess.run(command, check=True, cwd=tmp_path, env=environ, capture_output=True, text=True).stdout

    assert said.strip() == "[]"
    assert (tmp_path / "push_relay_client/py.typed").exists()
