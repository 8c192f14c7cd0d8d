"""Services as they would be found on a host, for the tests of their export."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.compose_health import Deployed
from ansible.module_utils.llmfleet.engines import llama_server, vllm
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.spec import build

OURS = {"Labels": {"io.llmfleet.build-key": "0123456789ab"}}


def llama(
    name: str = "chat",
    key: str = "",
    gpus: str = "",
    gpu_ids: t.Sequence[str] = (),
    image: t.Any = OURS,
    **fields: t.Any,
) -> Deployed:
    """Return a service of llama-server as it would be found on a host."""
    model = fields.pop("path", "/models/m.gguf")
    service = parse({"name": name, "model": model, "port": 8080, "api_key": key, **fields})
    launch = llama_server.launch(service, model, 2048, key, bool(gpus))
    made = {"image": service.image or "llmfleet/llama.cpp:cpu-1", "image_id": "sha256:1", "model_fingerprint": "f"}
    files = {secret: f"/var/lib/llmfleet/services/{name}/0123/{secret}" for secret in launch.secrets}
    groups = [44, 993] if gpus in ("amd", "intel") else []
    return Deployed(build(service, launch, **made, salt="s", gpus=gpus, gpu_ids=gpu_ids, groups=groups), image, files)


def vllm_service(key: str = "", mounts: t.Sequence[Mount] = (), gpus: str = "nvidia", **fields: t.Any) -> Deployed:
    """Return a service of vLLM as it would be found on a host."""
    service = parse({"name": "big", "engine": "vllm", "model": "/m/qwen", "port": 8000, "api_key": key, **fields})
    launch = vllm.launch(service, "/m/qwen", 2048, key, bool(gpus), mounts=mounts)
    made = {"image": "vllm/vllm-openai:v1", "image_id": "sha256:2", "model_fingerprint": "f"}
    return Deployed(build(service, launch, **made, salt="s", gpus=gpus))
