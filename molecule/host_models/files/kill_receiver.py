"""Kill whoever receives a model here, as soon as a good part of it has arrived. Prints how many bytes had."""

import glob
import os
import re
import signal
import sys
import time

MODELS = "/var/lib/llmfleet/models/hub"
A_GOOD_PART = 80_000_000


def arrived() -> int:
    """Return the bytes that the files which are arriving have on the disk."""
    files = glob.glob(f"{MODELS}/*/.llmfleet/incoming-*/*.gguf*")
    return sum(os.stat(file).st_blocks * 512 for file in files)


def receivers() -> set:
    """Return the processes that have the lock of a repository open."""
    found = set()
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if re.fullmatch(f"{MODELS}/[^/]+/.llmfleet/lock", os.readlink(link)):
                found.add(int(link.split("/")[2]))
        except OSError:
            pass
    return found


until = time.monotonic() + 120
while time.monotonic() < until:
    victims = receivers() if arrived() > A_GOOD_PART else set()
    if victims:
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        # what was written when it ended counts, not what was there when it was looked for
        time.sleep(1)
        print(arrived())
        sys.exit(0)
    time.sleep(0.02)
sys.exit("nobody received a model for 120 s")
