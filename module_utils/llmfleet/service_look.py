"""What runs on a host, whether it answers and how fast, found without the inventory. Edge code; changes nothing."""

from __future__ import annotations

import http.client
import re
import typing as t
from dataclasses import dataclass, field, replace

from ansible.module_utils.llmfleet import llm_load_run, model_record, spec
from ansible.module_utils.llmfleet.addresses import urls_of
from ansible.module_utils.llmfleet.constants import LABEL_SERVICE
from ansible.module_utils.llmfleet.container_failures import explain_death
from ansible.module_utils.llmfleet.container_look import ENDED, containers_by, life, stopped, with_usage
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import Verify
from ansible.module_utils.llmfleet.watch import NotReadyError, log_of, wait_ready

Data = dict[str, t.Any]

NONE, AUTO = "none", "auto"
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
    names: tuple[str, ...] = ()
    """The services to look at; none named are all."""


@dataclass(frozen=True)
class Found:
    """A service of which there is a container, or a unit told in the same words."""

    name: str
    container: Data
    """As `docker inspect` tells it."""
    spec: spec.Spec | None
    """What it was made from; None where that cannot be read."""
    key_file: str = ""
    watched: str = ""
    """The name by which ``docker`` knows it, if that is not the container's."""
    docker: Docker | None = None
    """Who answers for it, if that is not docker."""


def in_containers(docker: Docker) -> list[Found]:
    """Return the services that have a container on this host."""
    found = []
    for name, boxes in containers_by(docker, LABEL_SERVICE).items():
        # beside it there may be what an interrupted roll-out left
        box = next((box for box in boxes if box["Name"].lstrip("/") == name), boxes[0])
        try:
            stored = spec.stored(box)
        except ValueError:
            stored = None
        found.append(Found(name, box, stored, _key_file(box)))
    return found


def look(docker: Docker, services: t.Sequence[Found], questions: Questions) -> list[Data]:
    """Return one row for each of ``services``, in the order of their names."""
    rows = []
    for found in sorted(services, key=lambda found: found.name):
        if found.name not in (questions.names or (found.name,)):
            continue
        row: Data = {"name": found.name, **life(found.container), "urls": {"host": None, "lan": None}}
        row.update(verification=None, loads=[], answering=None, problem="", fix="")
        try:
            _look_at(found.docker or docker, found, row, questions)
        except (LlmfleetError, OSError) as error:
            # such as one that is taken away just now
            row.update(answering=False, problem=str(error), fix="run again")
        rows.append((found.container, row))
    return with_usage(docker, rows)


def _look_at(docker: Docker, found: Found, row: Data, questions: Questions) -> None:
    """Complete ``row`` by what the service was made from, and by what it answers."""
    made = found.spec
    if made is None or made.get("engine") not in ENGINES:
        row["problem"] = f"{row['container']} has no specification that can be read"
        row["fix"] = "deploy the service again, with the llmfleet that made it or a newer one"
        return
    address = _ADDRESS.fullmatch(made["publish"])
    image = docker.inspect("image", row["image_id"]) if row["image_id"] else None
    row.update(
        engine=made["engine"],
        runtime=made.get("runtime", "container"),
        task=made.get("task", "generate"),
        served_name=made["served_name"],
        has_api_key="api_key" in made["secrets"],
        image=made.get("image", ""),
        image_digests=(image or {}).get("RepoDigests") or [],
        model=model_record.record(made),
        urls=urls_of(address["bind"], int(address["port"])) if address else row["urls"],
    )
    if row["state"] in ENDED:
        row["answering"] = False
        if not stopped(found.container):
            log = log_of(docker, found.watched or row["container"])
            said = explain_death(found.container["State"], log, ENGINES[made["engine"]], made["memory"])
            _say(row, said)
    elif questions.level != NONE and address:
        _ask(docker, found, {**made, "name": found.watched or row["container"]}, row, questions)


def _ask(docker: Docker, found: Found, made: spec.Spec, row: Data, questions: Questions) -> None:
    """Verify a service that runs, and measure it."""
    host, key = row["urls"]["host"].removesuffix("/v1"), _first_line(found.key_file)
    # asking one of several models may unload the one that others are using
    usual = "model" if made.get("models") else ""
    verify = Verify(level=usual if questions.level == AUTO else questions.level, timeout=questions.patience)
    try:
        report = wait_ready(docker, made, Endpoint(host, key, timeout=60), verify)
    except NotReadyError as error:
        row.update(answering=False, verification=error.report.as_dict())
        _say(row, error.diagnosis)
        return
    row.update(answering=True, verification=report.as_dict())
    _check_lan(row, key)
    for streams in questions.streams if row["task"] == "generate" and not usual else ():
        result = llm_load_run.run(host, key, row["served_name"], replace(questions.load, streams=streams))
        row["loads"].append(result)
        row["problem"] = row["problem"] or llm_load_run.failed(result)


def _say(row: Data, diagnosis: t.Mapping[str, str]) -> None:
    """Write a diagnosis into ``row``, for somebody who looks and has launched nothing."""
    name = row["container"]
    log = f"journalctl -u {name}" if row["runtime"] == "venv" else f"docker logs {name}"
    fix = diagnosis["fix"].replace("see log_tail", f"see {log}")
    if "verify.timeout" in fix:
        fix = f"wait and look again ({log} says how far it is), or give it more patience (report_patience)"
    row.update(problem=f"{diagnosis['cause']} ({diagnosis['evidence']})", fix=fix)


def _check_lan(row: Data, key: str) -> None:
    """Take back the address for other machines where not even this one reaches the service by it."""
    lan = row["urls"]["lan"]
    if lan is None or lan == row["urls"]["host"]:
        return
    try:
        status, _ = Endpoint(lan.removesuffix("/v1"), key).get("/v1/models", timeout=5)
        why = "" if status == 200 else f"it says HTTP {status}"
    except (OSError, http.client.HTTPException) as error:
        why = str(error)
    if why:
        row.update(urls={**row["urls"], "lan": None}, problem=f"{lan} does not work: {why}")
        row["fix"] = "see whether a firewall of the host keeps the port closed (nft list ruleset, iptables -S)"


def _key_file(container: Data) -> str:
    """Return the file on the host that a container gets its API key from, "" for none."""
    mounts = container.get("Mounts") or ()
    return next((mount["Source"] for mount in mounts if mount["Destination"] == f"{SECRETS_DIR}/api_key"), "")


def _first_line(path: str) -> str:
    if not path:
        return ""
    with open(path, encoding="utf-8") as file:
        # the engine may have been given it more than once
        return file.readline().strip()
