"""The gateway for the role: what speaks against it, its files, and where it answers. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.gateway import certificate, nginx, words
from ansible.module_utils.llmfleet.gateway.fleet import Data
from ansible.module_utils.llmfleet.gateway.request import make

SECRET_MODE, MODE = "0400", "0444"
HEALTH_SECONDS = 20


def hosts(
    names: t.Sequence[str], services: t.Sequence[t.Any], addresses: t.Sequence[str], given: t.Sequence[str]
) -> list[dict[str, t.Any]]:
    """Return the hosts with services as the gateway wants them, from one list of each; ``given`` addresses go first."""
    rows = zip(names, services, addresses, given)
    return [
        {"host": name, "services": own or [], "address": said or address or name} for name, own, address, said in rows
    ]


def problems(said: Data, fleet: t.Sequence[Data], host: str) -> list[str]:
    """Return what speaks against the gateway that the role's variables ``said`` describe; [] when nothing does."""
    try:
        certificate.names(said["names"], ())
        make(said, fleet, host)
    except LlmfleetError as error:
        return [str(error)]
    return []


def container(
    said: Data, fleet: t.Sequence[Data], host: str, program: str, layout: Data, pair: Data
) -> dict[str, t.Any]:
    """Return what the module side_container is told beside the image: files, where it listens, how it is asked.

    ``program`` is gateway.js; ``pair`` has the certificate and the private_key.
    """
    request = make(said, fleet, host)
    made = nginx.files(request, program, layout, pair["certificate"], pair["private_key"])
    secret = (nginx.CONFIG, words.KEY)
    rows = [
        {"path": name, "content": content, "mode": SECRET_MODE if name in secret else MODE}
        for name, content in made.items()
    ]
    return {
        "files": rows,
        "files_target": words.TARGET,
        "entrypoint": layout["binary"],
        "argv": list(nginx.ARGV),
        "check_argv": [layout["binary"], *nginx.ARGV, "-t"],
        "listens": [f"{words.address(request.bind)}:{request.port}", f"127.0.0.1:{request.local_port}"],
        "health": {
            "url": f"http://127.0.0.1:{request.local_port}/health",
            "contains": nginx.serial(made),
            "timeout": HEALTH_SECONDS,
        },
    }


def result(said: Data, fleet: t.Sequence[Data], host: str, pair: Data) -> dict[str, t.Any]:
    """Return what others are told of the gateway: its addresses, the services behind it and its certificate.

    ``pair``: what llm_gateway_certificate has said.
    """
    request = make(said, fleet, host)
    seen = pair["address"] if request.bind in ("0.0.0.0", "::") else request.bind  # noqa: S104 - compared
    base = f"https://{words.address(seen)}:{request.port}"
    return {
        "urls": [f"{base}/v1"],
        "local_url": f"http://127.0.0.1:{request.local_port}/v1",
        "web_ui": f"{base}/" if request.web_ui else "",
        "models": [group.model for group in request.groups],
        "keys": [one.name for one in request.keys],
        "certificate": pair["path"],
        "certificate_given": pair["action"] == "given",
    }


def report(host: str, found: Data) -> str:
    """Return where the gateway of ``host`` answers and how it is called, from what `result` returned."""
    trust = "" if found["certificate_given"] else " --cacert gateway.pem"
    header = ' -H "Authorization: Bearer $API_KEY"' if found["keys"] else ""
    lines = [
        f"{host}: gateway ({found['action']})",
        f"  address       {', '.join(found['urls'])}, on the host itself {found['local_url']}",
        f"  models        {', '.join(found['models'])}",
        f"  keys          {', '.join(found['keys']) or 'none are asked for'}",
        f"  with curl     curl{trust} {found['urls'][0]}/models{header}",
    ]
    if not found["certificate_given"]:
        lines.insert(4, f"  certificate   {found['certificate']} on the host; clients trust it as their gateway.pem")
    if found["web_ui"]:
        lines.insert(2, f"  web UI        {found['web_ui']}")
    return "\n".join(lines)
