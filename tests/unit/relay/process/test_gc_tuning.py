import gc
import subprocess
import sys
from typing import Final

from relay.process import gc_tuning

THREADS: Final = """
import ctypes, os, tempfile, threading
from relay.process import gc_tuning

gc_tuning.share_heaps()
allocator = ctypes.CDLL(None)
allocator.malloc.restype = allocator.fdopen.restype = ctypes.c_void_p
allocator.malloc_info.argtypes = (ctypes.c_int, ctypes.c_void_p)
allocator.fclose.argtypes = (ctypes.c_void_p,)
meeting = threading.Barrier(6)

def allocate():
    allocator.malloc(100_000)
    meeting.wait()

threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with tempfile.NamedTemporaryFile() as file:
    stream = allocator.fdopen(os.dup(file.fileno()), b"w")
    allocator.malloc_info(0, stream)
    allocator.fclose(stream)
    file.seek(0)
    print(file.read().count(b"<heap nr="))
"""


def test_freezing_makes_collections_rare_and_exempts_the_objects_that_exist() -> None:
    before = gc.get_threshold()
    mine: list[object] = []
    assert any(each is mine for each in gc.get_objects())
    try:
        gc_tuning.freeze_heap()

        assert gc.get_threshold() == gc_tuning.THRESHOLDS
        assert not any(each is mine for each in gc.get_objects())
    finally:
        gc.set_threshold(*before)


def test_many_threads_share_few_heaps_of_malloc() -> None:
    process = subprocess.run([sys.executable, "-c", THREADS], check=True, capture_output=True, text=True)

    assert 1 <= int(process.stdout) <= gc_tuning.ARENAS
