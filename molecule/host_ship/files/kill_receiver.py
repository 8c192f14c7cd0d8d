"""Kill whoever receives an image here, as soon as a good part of it has arrived. Prints how many bytes had."""

import glob
import os
import re
import signal
import sys
import time

TRANSFERS = "/var/lib/llmfleet/transfers"
A_GOOD_PART = 1_000_000


def arrived() -> int:
    """Return the bytes of the chunks that are there."""
    chunks = (path for path in glob.glob(f"{TRANSFERS}/*/*") if re.fullmatch("[0-9a-f]{64}", os.path.basename(path)))
    return sum(map(os.path.getsize, chunks))


def receivers() -> set:
    """Return the processes that have the lock of a transfer open."""
    found = set()
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if re.fullmatch(f"{TRANSFERS}/[^/]+/lock", os.readlink(link)):
                found.add(int(link.split("/")[2]))
        except OSError:
            pass
    return found


until = time.monotonic() + 300
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
sys.exit("nobody received an image for 300 s")
