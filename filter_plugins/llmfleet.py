"""Filters over the pure core; see module_utils/llmfleet for what each does."""

from __future__ import annotations

import importlib
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path

import ansible.module_utils

# ansible.cfg's module_utils path reaches the targets only; on the controller the same code is imported from here
_CORE = str(Path(__file__).resolve().parent.parent / "module_utils")
if _CORE not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_CORE)

FILTERS = {
    "llmfleet_bundle": "image_bundle.judge",
    "llmfleet_bundle_content": "image_bundle.content",
    "llmfleet_bundle_found": "image_bundle.found",
    "llmfleet_bundle_lacking": "image_bundle.lacking",
    "llmfleet_bundle_same": "image_bundle.same",
    "llmfleet_catalogue": "catalogue_read.resolve",
    "llmfleet_cuda_plan": "cuda_plan.make",
    "llmfleet_engine_plan": "engine_plan.make",
    "llmfleet_gateway_container": "gateway.plan.container",
    "llmfleet_gateway_hosts": "gateway.plan.hosts",
    "llmfleet_gateway_problems": "gateway.plan.problems",
    "llmfleet_gateway_report": "gateway.plan.report",
    "llmfleet_gateway_result": "gateway.plan.result",
    "llmfleet_gpu_self_test": "gpu_self_test.judge",
    "llmfleet_image_commit": "image_need.commit_in_use",
    "llmfleet_image_fleet": "image_rounds.plan",
    "llmfleet_image_need": "image_fleet.need",
    "llmfleet_image_peers": "image_peers.spread",
    "llmfleet_image_plan": "image_plan.settle",
    "llmfleet_image_wish": "image_need.wish",
    "llmfleet_models_answered": "model_rows.answered",
    "llmfleet_models_begin": "model_rounds.begin",
    "llmfleet_models_directly": "model_rows.directly",
    "llmfleet_models_done": "model_rows.done",
    "llmfleet_models_failures": "model_rounds.failures",
    "llmfleet_models_fetched": "model_rounds.fetched",
    "llmfleet_models_fleet": "model_rounds.fleet",
    "llmfleet_models_folders": "model_rows.folders",
    "llmfleet_models_heard": "model_rows.heard",
    "llmfleet_models_lacking": "model_rows.lacking",
    "llmfleet_models_open": "model_rounds.open_rows",
    "llmfleet_models_received": "model_rounds.received",
    "llmfleet_models_rows": "model_rows.rows",
    "llmfleet_models_settle": "model_plan.settle",
    "llmfleet_models_shown": "model_ref.masked",
    "llmfleet_models_to_ask": "model_rows.to_ask",
    "llmfleet_models_to_fetch": "model_rounds.to_fetch",
    "llmfleet_models_to_receive": "model_rounds.to_receive",
    "llmfleet_models_to_share": "model_rounds.to_share",
    "llmfleet_models_wanted": "model_rows.wanted",
    "llmfleet_models_ways": "model_rows.ways",
    "llmfleet_open_webui": "open_webui.settings.make",
    "llmfleet_plan": "plan.make_plan",
    "llmfleet_plan_table": "plan.table",
    "llmfleet_problems": "plan.problems_of",
    "llmfleet_report": "closing_report.closing_report",
    "llmfleet_status_host": "status_rows.of_host",
    "llmfleet_status_hosts": "status_rows.unseen",
    "llmfleet_status_json": "status_table.document",
    "llmfleet_status_table": "status_table.table",
    "llmfleet_status_wrong": "status_rows.wrong",
    "llmfleet_toolkit_plan": "toolkit_plan.plan",
    "llmfleet_venv_need": "venv.plan.need",
    "llmfleet_venv_plan": "venv.plan.settle",
    "llmfleet_vllm_image": "published_images.vllm",
    "llmfleet_vllm_need": "vllm_image_plan.need",
    "llmfleet_vllm_plan": "vllm_image_plan.settle",
    "llmfleet_without_secrets": "services.without_secrets",
}
"""Filter -> module and function of the core."""


def plain(value: t.Any) -> t.Any:
    """Return ``value`` as built-in types: Ansible hands over tagged, lazy and encrypted ones."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return str(value)


def on_plain_data(place: str) -> t.Callable[..., t.Any]:
    """Return the function at ``place``, called with plain copies of its arguments.

    It is imported when it is called: Ansible loads this file in a process per task, of which few use a filter of it.
    """
    module, _, name = place.rpartition(".")

    def call(*args: t.Any, **named: t.Any) -> t.Any:
        function = getattr(importlib.import_module(f"ansible.module_utils.llmfleet.{module}"), name)
        result = function(*map(plain, args), **plain(named))
        return asdict(result) if is_dataclass(result) and not isinstance(result, type) else result

    return call


def preload() -> None:
    """Import what the filters stand on, for processes that are forked from this one."""
    for place in FILTERS.values():
        importlib.import_module(f"ansible.module_utils.llmfleet.{place.rpartition('.')[0]}")


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return filter name -> callable."""
        return {name: on_plain_data(place) for name, place in FILTERS.items()}
