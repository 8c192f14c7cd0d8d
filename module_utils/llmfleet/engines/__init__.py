"""One file per engine: what it is started with, how it shows progress, and what its failures mean."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.engines import llama_server, vllm

ENGINES: t.Mapping[str, t.Any] = {llama_server.NAME: llama_server, vllm.NAME: vllm}
"""Engine name -> its module. Of a service: MODEL_FORMAT (of hub.manifest), PATHS, DEFAULT_PARALLEL, OPTIONS, CHOICES,
REFUSED_FIELDS, REFUSED_WORDS, REFUSED_MODELS, OWNED_FLAGS, SHARED_FLAGS, REFUSED_FLAGS, ABBREVIATES, OWNED_ENV,
REFUSED_ENV. Of a container: launch(), rehearsal(), HEALTH_PATH, PHASES, FAILURES, and OFFLOAD: LIST_DEVICES,
gpu_argv(), planned_layers(), fell_back(), proven_by_log(), judge()."""
