"""What runs on a host, whether it answers and how fast, found without the inventory. Edge code; changes nothing."""

from __future__ import annotations

import calendar
import json
import re
import time
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet import container_usage, llm_load_run, model_record, spec
from ansible.module_utils.llmfleet.addresses import urls_of
from ansible.module_utils.llmfleet.constants import LABEL_SERVICE, LABEL_SIDE
from ansible.module_utils.llmfleet.container_failures import explain_death
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import Verify
from ansible.module_utils.llmfleet.watch import NotReadyError, log_of, wait_ready

Data = dict[str, t.Any]

NONE, AUTO = "none", "auto"
_ENDED_BY_HAND = (0, 137, 143)
"""Exit statuses of what `docker stop` ended."""
_ADDRESS = re.compile(r"\[?(?P<bind>.+?)\]?:(?P<port>\d+):\d+")


@dataclass(frozen=True)
class Questions:
    """How closely to look."""

    level: str = AUTO
    """NONE, AUTO (a token, and the device where one was planned) or a level of verification."""
    patience: int = 5
    """Seconds to wait for a service that is loading."""
    streams: tuple[int, ...] = ()
    """Loads to measure, by their number of streams."""
    load: llm_load_run.Load = field(default_factory=llm_load_run.Load)


def containers_by(docker: Docker, label: str) -> dict[str, list[Data]]:
    """Return value of ``label`` -> its containers as `docker inspect` tells them."""
    ids = docker.text("ps", "--all", "--no-trunc", "--quiet", "--filter", f"label={label}").split()
    found: dict[str, list[Data]] = {}
    # one that goes away meanwhile makes the exit status bad, not what is said of the others
    for one in json.loads(docker.attempt("container", "inspect", *ids)[1] or "[]") if ids else ():
        found.setdefault(one["Config"]["Labels"][label], []).append(one)
    return found


def look(docker: Docker, questions: Questions) -> list[Data]:
    """Return one row for each service that has a container on this host, in the order of their names."""
    found = []
    for name, boxes in sorted(containers_by(docker, LABEL_SERVICE).items()):
        # beside it there may be what an interrupted roll-out left
        box = next((box for box in boxes if box["Name"].lstrip("/") == name), boxes[0])
        found.append((box, _row(docker, name, box, questions)))
    return with_usage(docker, found)


def helpers(docker: Docker) -> list[Data]:
    """Return one row for each helper (gateway, web UI) that has a container on this host."""
    found = []
    for name, boxes in sorted(containers_by(docker, LABEL_SIDE).items()):
        # beside it there may be what an interrupted roll-out left
        box = next((box for box in boxes if box["State"]["Status"] == "running"), boxes[0])
        found.append((box, {"name": name, "image": box["Config"]["Image"], **life(box)}))
    return with_usage(docker, found)


def with_usage(docker: Docker, found: t.Sequence[tuple[Data, Data]]) -> list[Data]:
    """Return the rows of (container, row) with what memory those take that run."""
    pids = {box["Id"]: int(box["State"]["Pid"]) for box, _ in found if box["State"]["Status"] == "running"}
    memory, gpu = container_usage.memory(docker, pids), container_usage.gpu_memory(docker, list(pids))
    return [
        {**row, "memory_bytes": memory.get(box["Id"]), "gpu_memory_bytes": gpu.get(box["Id"])} for box, row in found
    ]


def life(container: Data, now: float | None = None) -> Data:
    """Return {container, state, image_id, restarts, started_at, uptime_seconds} of any container."""
    state = container["State"]
    started = calendar.timegm(time.strptime(state["StartedAt"][:19], "%Y-%m-%dT%H:%M:%S"))
    runs = state["Status"] == "running"
    return {
        "container": container["Name"].lstrip("/"),
        "state": state["Status"],
        "image_id": container["Image"],
        "restarts": container.get("RestartCount", 0),
        "started_at": f"{state['StartedAt'][:19]}Z" if runs else None,
        "uptime_seconds": int((time.time() if now is None else now) - started) if runs else None,
    }


def _row(docker: Docker, name: str, container: Data, questions: Questions) -> Data:
    row: Data = {
        "name": name,
        **life(container),
        "urls": {"host": None, "lan": None},
        "verification": None,
        "loads": [],
    }
    row.update(answering=None, problem="", fix="")
    try:
        found = spec.stored(container)
    except ValueError:
        found = None
    if found is None or found.get("engine") not in ENGINES:
        row["problem"] = f"container {row['container']} has no specification that can be read"
        row["fix"] = "deploy the service again, with the llmfleet that the container was made by or a newer one"
        return row
    address = _ADDRESS.fullmatch(found["publish"])
    row.update(
        engine=found["engine"],
        task=found.get("task", "generate"),
        served_name=found["served_name"],
        has_api_key="api_key" in found["secrets"],
        image=found["image"],
        image_digests=(docker.inspect("image", container["Image"]) or {}).get("RepoDigests") or [],
        model=model_record.record(found),
        urls=urls_of(address["bind"], int(address["port"])) if address else row["urls"],
    )
    if row["state"] in ("exited", "created", "dead"):
        _explain_end(docker, container, found, row)
    elif questions.level != NONE and address:
        _ask(docker, container, found, row, questions)
    return row


def _explain_end(docker: Docker, container: Data, found: spec.Spec, row: Data) -> None:
    """Say why a container ended, unless somebody stopped it."""
    row["answering"] = False
    state = container["State"]
    if state["Status"] != "created" and (state.get("OOMKilled") or state.get("ExitCode") not in _ENDED_BY_HAND):
        engine = ENGINES[found["engine"]]
        said = explain_death(state, log_of(docker, row["container"]), engine, found["memory"])
        row.update(problem=f"{said['cause']} ({said['evidence']})", fix=said["fix"])


def _ask(docker: Docker, container: Data, found: spec.Spec, row: Data, questions: Questions) -> None:
    """Verify a container that runs, and measure it."""
    host = row["urls"]["host"].removesuffix("/v1")
    key = _api_key(container)
    verify = Verify(level="" if questions.level == AUTO else questions.level, timeout=questions.patience)
    try:
        report = wait_ready(docker, {**found, "name": row["container"]}, Endpoint(host, key, timeout=60), verify)
    except NotReadyError as error:
        row.update(answering=False, verification=error.report.as_dict())
        row.update(problem=f"{error.diagnosis['cause']} ({error.diagnosis['evidence']})", fix=error.diagnosis["fix"])
        return
    row.update(answering=True, verification=report.as_dict())
    _check_lan(row, key)
    for streams in questions.streams if row["task"] == "generate" else ():
        load = llm_load_run.Load(streams, 0, questions.load.seconds, questions.load.max_tokens, questions.load.prompt)
        row["loads"].append(llm_load_run.run(host, key, row["served_name"], load))
        row["problem"] = row["problem"] or llm_load_run.failed(row["loads"][-1])


def _check_lan(row: Data, key: str) -> None:
    """Take back the address for other machines where not even this one reaches the service by it."""
    lan = row["urls"]["lan"]
    if lan is None or lan == row["urls"]["host"]:
        return
    try:
        status, _ = Endpoint(lan.removesuffix("/v1"), key).get("/v1/models", timeout=5)
        why = "" if status == 200 else f"it says HTTP {status}"
    except OSError as error:
        why = str(error)
    if why:
        row.update(urls={**row["urls"], "lan": None}, problem=f"{lan} does not work: {why}")
        row["fix"] = "see whether a firewall of the host keeps the port closed (nft list ruleset, iptables -S)"


def _api_key(container: Data) -> str:
    """Return the API key of a container, from the file that it was given."""
    for mount in container.get("Mounts") or ():
        if mount["Destination"] == f"{SECRETS_DIR}/api_key":
            with open(mount["Source"], encoding="utf-8") as file:
                return file.readline().strip()
    return ""
