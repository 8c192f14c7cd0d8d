"""llama-server as a router of several models: one process for each, which it starts when the model is asked for. Pure.

What was seen of commit 0c1e57098 (2026-10-01): arguments of the router are those of every model, before what the preset
says of it, but for names, addresses and keys; the children listen on the loopback address only. A request without or
with an unknown `model` is answered with HTTP 400.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR
from ansible.module_utils.llmfleet.errors import BadInput

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.services import Service

PRESET = "models_preset"
FLAG = "--models-preset"


def argv(service: Service) -> list[str]:
    """Return what stands in place of a model."""
    return [FLAG, f"{SECRETS_DIR}/{PRESET}", "--models-max", str(service.loaded)]


def preset(service: Service, inside: t.Mapping[str, str], contexts: t.Mapping[str, int], usual_context: int) -> str:
    """Return the file that has the models of ``service``; raises BadInput for a path that it cannot hold.

    ``inside``: key -> path of a model in the container; ``contexts``: key -> tokens it was trained for;
    ``usual_context``: what a request may use where the model allows it, 0 where the arguments say it.
    """
    sections = []
    for name, _ in service.models:
        key = f"models/{name}"
        path = inside[key]
        if re.search(r"[\s;#]", path):
            raise BadInput(
                f"service {service.name}: the file of {name} in `models` may not have white space, ; or # in its name: "
                f"{path.rsplit('/', 1)[1]!r}; rename it"
            )
        rows = [f"[{name}]", f"model = {path}"]
        if usual_context:
            context = min(usual_context, contexts.get(key) or usual_context)
            rows.append(f"ctx-size = {context * service.parallel}")
        sections.append("\n".join(rows))
    return "\n\n".join(sections)
