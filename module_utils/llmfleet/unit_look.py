"""Services that run in a venv under systemd, found by their units and told in the words of containers. Edge code."""

from __future__ import annotations

import calendar
import glob
import os
import re
import time

from ansible.module_utils.llmfleet.docker_cli import Runner
from ansible.module_utils.llmfleet.host_edge import read_text
from ansible.module_utils.llmfleet.service_look import Found
from ansible.module_utils.llmfleet.venv import unit
from ansible.module_utils.llmfleet.venv.service_spec import UNITS, unit_of
from ansible.module_utils.llmfleet.venv.systemd import Systemd, UnitsAsContainers

_KEY_FILE = re.compile(r"(/[^\s\"'\\]+/api_key)\b")
"""Where the unit's command reads the API key."""


def in_units(run: Runner, units: str = UNITS) -> list[Found]:
    """Return the services that have a unit on this host."""
    found = []
    for path in sorted(glob.glob(os.path.join(units, unit_of("*")))):
        text = read_text(path)
        stored, systemd = unit.stored(text), Systemd(run)
        name = stored["name"] if stored else re.sub(unit_of("(.+)"), r"\1", os.path.basename(path))
        seen = UnitsAsContainers(systemd)
        container = seen.inspect("container", name)
        if container is None:
            continue
        started = container["State"]["StartedAt"]
        # what was printed by an earlier start is not this one's
        seen.since = float(calendar.timegm(time.strptime(started[:19], "%Y-%m-%dT%H:%M:%S")))
        _, pid, _ = systemd.attempt("show", unit_of(name), "--property=MainPID", "--value")
        container["State"]["Pid"] = int(pid.strip() or 0)
        key = _KEY_FILE.search(text) if stored and "api_key" in stored["secrets"] else None
        container.update(Id=unit_of(name), Name=unit_of(name))
        found.append(Found(name, container, stored, key[1] if key else "", watched=name, docker=seen))
    return found
