"""Imports the pure core once, before Ansible forks a process per task."""

from __future__ import annotations

DOCUMENTATION = r"""
name: llmfleet_preload
type: aggregate
short_description: Imports the code of llmfleet's filters once
description:
  - Ansible evaluates the templates of each task in a process of its own. Those are forked from the main process, so
    what is imported there need not be imported by each of them, which saves a tenth of a run that changes nothing.
  - Prints nothing, and without it everything works the same.
author:
  - llmfleet contributors (@llmfleet)
"""

import importlib.util
from pathlib import Path

from ansible.plugins.callback import CallbackBase

_FILTERS = Path(__file__).resolve().parent.parent / "filter_plugins" / "llmfleet.py"


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Does its work when it is made, which is before the first task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "llmfleet_preload"

    def __init__(self) -> None:
        super().__init__()
        spec = importlib.util.spec_from_file_location("llmfleet_filters", _FILTERS)
        if spec and spec.loader:
            filters = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(filters)
            filters.preload()
