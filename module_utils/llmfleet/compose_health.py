"""The healthcheck of a deployed service in a Compose file, or why it can have none. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.compose_variables import literal
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.spec import Spec

# -I and -S: neither what lies in PYTHONPATH nor what is installed is read, which makes it quick
_PYTHON = (
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}, timeout=5); "
    "c.request('GET', '{path}'); raise SystemExit(c.getresponse().status != 200)"
)


@dataclass(frozen=True)
class Deployed:
    """A service as found on a host."""

    spec: Spec
    image: t.Mapping[str, t.Any] = field(default_factory=dict)
    """`Config` of its image, {} when the image is gone."""
    secret_files: t.Mapping[str, str] = field(default_factory=dict)
    """Secret -> the file on the host that the container gets it from."""


def healthcheck(deployed: Deployed) -> tuple[dict[str, t.Any] | None, str]:
    """Return (the healthcheck, why there is none): a program that the image has asks the engine whether it is ready.

    /health needs no key and answers 503 while the model loads. The start period is what the engine's phases may take.
    """
    engine = ENGINES[deployed.spec["engine"]]
    port = int(deployed.spec["publish"].rpartition(":")[2])
    # llama.cpp's own images ask by curl, which this project's leave out together with all else
    own = (deployed.image.get("Healthcheck") or {}).get("Test") or []
    if engine.NAME == "vllm":
        test = ["CMD", "python3", "-I", "-S", "-c", _PYTHON.format(port=port, path=engine.HEALTH_PATH)]
    elif re.search(r"\bcurl\b", " ".join(own[:2])):
        test = ["CMD", "curl", "-fsS", "--noproxy", "*", f"http://127.0.0.1:{port}{engine.HEALTH_PATH}"]
    else:
        address, outside, _ = published(deployed.spec)
        seen = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(address, address)  # noqa: S104
        why = (
            f"from outside: curl -fsS http://{seen}:{outside}{engine.HEALTH_PATH} (200 when ready, 503 while it loads)"
        )
        return ({"disable": True} if own else None), f"No healthcheck: the image holds no program that could ask; {why}"
    start = sum(int(phase.stall_seconds) for phase in engine.PHASES if not phase.failed)
    return {
        "test": [literal(word) for word in test],
        "start_period": f"{start}s",
        "interval": "30s",
        "timeout": "10s",
        "retries": 3,
    }, ""


def published(spec: Spec) -> tuple[str, str, str]:
    """Return (address, port on the host, port inside)."""
    rest, _, inside = spec["publish"].rpartition(":")
    address, _, port = rest.rpartition(":")
    return address, port, inside
