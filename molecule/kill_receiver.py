"""Kill whoever receives here, as soon as a good part of it has arrived. Prints how many bytes had.

Arguments: pattern (glob) of the files that are arriving, expression for the path of the lock that their receiver holds,
and how many bytes are a good part.
"""

import glob
import os
import re
import signal
import sys
import time

FILES, LOCK, A_GOOD_PART = sys.argv[1], sys.argv[2], int(sys.argv[3])
SECONDS = 300


def arrived() -> int:
    """Return the bytes that are there; files that get theirs in any order are longer than that."""
    total = 0
    for path in glob.glob(FILES):
        status = os.stat(path)
        total += min(status.st_size, status.st_blocks * 512)
    return total


def receivers() -> set:
    """Return the processes that have the lock open."""
    found = set()
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if re.fullmatch(LOCK, os.readlink(link)):
                found.add(int(link.split("/")[2]))
        except OSError:
            pass
    return found


until = time.monotonic() + SECONDS
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
sys.exit(f"nobody received anything for {SECONDS} s")
