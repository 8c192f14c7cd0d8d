"""The closing report: what answers where, what was proven, and how to call it. Pure."""

from __future__ import annotations

import json
import shlex
import typing as t

from ansible.module_utils.llmfleet.api_calls import TASK_PATHS

Data = t.Mapping[str, t.Any]

_DOCUMENTS = ["About the sea.", "About numbers."]
_ASKED: t.Mapping[str, Data] = {
    "generate": {"messages": [{"role": "user", "content": "Hello"}]},
    "embed": {"input": ["Hello"]},
    "rerank": {"query": "Where are ships?", "documents": _DOCUMENTS},
    "score": {"text_1": "Where are ships?", "text_2": _DOCUMENTS},
    "classify": {"input": ["Hello"]},
}
"""Task -> what the printed commands ask."""
_METHODS = {"generate": "chat.completions", "embed": "embeddings"}
"""Tasks that the openai package has a method for."""

ON_WSL = (
    "  on WSL2       the LAN address above is that of the WSL virtual machine; Windows itself reaches it as localhost, "
    "other machines use Windows' own address once it forwards port {port} (netsh interface portproxy, or "
    "networkingMode=mirrored in .wslconfig)"
)
"""learn.microsoft.com/windows/wsl/networking"""


def service_report(result: Data, prompt: str, wsl: bool) -> str:
    """Return the report of one started service from the result of the llm_service module."""
    service, urls, verified = result["service"], result["urls"], result["verification"]
    name = service.get("served_name") or next(iter(service.get("models") or ()), service["name"])
    base = urls["lan"] or urls["host"]
    header = ' -H "Authorization: Bearer $API_KEY"' if service.get("has_api_key") else ""
    client_key = "os.environ['API_KEY']" if service.get("has_api_key") else "'none'"
    levels = ", ".join(f"{level} {seconds:.2f} s" for level, seconds in verified["levels"].items())
    lan = urls["lan"] or "not published (bind is a loopback address; set `bind` and `api_key` to publish)"
    lines = [
        f"service {service['name']}: ready ({result['action']}: {result['why']})",
        f"  on the host   {urls['host']}",
        f"  on the LAN    {lan}",
        f"  verified      {levels}",
    ]
    if verified.get("device"):
        lines.append(f"  on the GPU    {verified['device']}")
    if wsl and urls["lan"]:
        lines.insert(3, ON_WSL.format(port=service["port"]))
    if verified.get("reply") is not None:
        speed = (
            f"{verified['tokens_per_second']} tokens/s" if verified.get("tokens_per_second") else "too short to time"
        )
        lines += [
            f"  asked         {prompt}",
            f"  replied       {verified['reply'].strip()}",
            f"  speed         first token after {verified['first_token_seconds']:.3f} s, {speed}",
        ]
    if verified.get("proof"):
        lines.append(f"  answered      {verified['proof']}")
    task = service.get("task") or "generate"
    data = shlex.quote(json.dumps({"model": name, **_ASKED[task]}))
    url = f"{base.removesuffix('/v1')}{TASK_PATHS[task]}"
    lines.append(f"  with curl     curl {url}{header} -H 'Content-Type: application/json' -d {data}")
    if task in _METHODS:
        asked = ", ".join(f"{key}={json.dumps(value)}" for key, value in _ASKED[task].items())
        lines.append(
            f'  with openai   OpenAI(base_url="{base}", api_key={client_key}).{_METHODS[task]}.create('
            f'model="{name}", {asked})'
        )
    return "\n".join(lines)


def closing_report(results: t.Sequence[Data], host: str, wsl: bool = False) -> str:
    """Return the report of one host (``wsl``: it is a WSL2 machine): its running services, then the others."""
    parts = []
    for result in results:
        service = result["service"]
        if result.get("verification"):
            parts.append(service_report(result, service.get("prompt", ""), wsl))
        else:
            parts.append(f"service {service['name']}: {result['action']} ({result['why']})")
    return f"{host}\n" + "\n".join(parts) if parts else f"{host}: no services"
