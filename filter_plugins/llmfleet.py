"""Filters over the pure core; see module_utils/llmfleet for what each does."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence
from pathlib import Path

import ansible.module_utils

# ansible.cfg's module_utils path reaches the targets only; on the controller the same code is imported from here
_CORE = str(Path(__file__).resolve().parent.parent / "module_utils")
if _CORE not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_CORE)

from ansible.module_utils.llmfleet import engine_plan, gpu_self_test, toolkit_plan  # noqa: E402 - needs the path above
from ansible.module_utils.llmfleet.closing_report import closing_report  # noqa: E402
from ansible.module_utils.llmfleet.plan import make_plan, problems_of, table  # noqa: E402
from ansible.module_utils.llmfleet.services import without_secrets  # noqa: E402


def plain(value: t.Any) -> t.Any:
    """Return ``value`` as built-in types: Ansible hands over tagged, lazy and encrypted ones."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return str(value)


def on_plain_data(function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Return ``function`` called with plain copies of its arguments."""
    return lambda *args, **named: function(*map(plain, args), **plain(named))


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return filter name -> callable."""
        return {
            "llmfleet_problems": on_plain_data(problems_of),
            "llmfleet_engine_plan": on_plain_data(engine_plan.make),
            "llmfleet_gpu_self_test": on_plain_data(gpu_self_test.judge),
            "llmfleet_toolkit_plan": on_plain_data(toolkit_plan.plan),
            "llmfleet_plan": on_plain_data(make_plan),
            "llmfleet_plan_table": on_plain_data(table),
            "llmfleet_without_secrets": on_plain_data(without_secrets),
            "llmfleet_report": on_plain_data(closing_report),
        }
