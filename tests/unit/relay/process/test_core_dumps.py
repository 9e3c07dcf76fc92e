import subprocess
import sys

import pytest

LOOK = """
import ctypes, resource
print(ctypes.CDLL(None).prctl(3), resource.getrlimit(resource.RLIMIT_CORE))  # 3: PR_GET_DUMPABLE
"""
COMMAND = """
import sys
from relay.cli.main import main
sys.argv = ["relay", "--help"]
try:
    main()
except SystemExit:
    pass
"""
CERTIFICATE = """
import io, sys
from relay.registration import certificate_process
sys.stdin = io.StringIO('{"user": "", "pem": "", "pkcs12": "", "passphrase": ""}')
certificate_process.main()
print()
"""


@pytest.mark.parametrize(("program", "said"), [("", "1"), (COMMAND, "0 (0, 0)"), (CERTIFICATE, "0 (0, 0)")])
def test_no_program_of_the_relay_leaves_a_core_dump(program: str, said: str) -> None:
    ended = subprocess.run([sys.executable, "-c", program + LOOK], capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines()[-1].startswith(said)
