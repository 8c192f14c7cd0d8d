"""One file per engine: what it is started with, how it shows progress, and what its failures mean."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.engines import llama_server

ENGINES: t.Mapping[str, t.Any] = {llama_server.NAME: llama_server}
"""Engine name -> its module: NAME, HEALTH_PATH, PHASES, FAILURES, OWNED_FLAGS, REFUSED_FLAGS, OWNED_ENV, launch(), and
OFFLOAD: LIST_DEVICES, gpu_argv(), planned_layers(), fell_back(), proven_by_log(), judge()."""
