"""The package index that the controller's pip uses."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pip_index
author: llmfleet contributors (@llmfleet)
version_added: "0.1.0"
short_description: the package index the controller's pip uses
description:
  - Returns the URL of the simple index that C(pip) on the controller would download from, read from its environment
    and configuration, else its built-in default.
  - Hosts without a pip of their own are given this one.
  - Returns an empty string where no pip can be asked.
options: {}
"""

EXAMPLES = r"""
- name: Show where packages come from
  ansible.builtin.debug:
    msg: "{{ lookup('pip_index') }}"
"""

RETURN = r"""
_raw:
  description: One URL, or an empty string.
  type: list
  elements: str
"""

import inspect
import subprocess
import sys
import typing as t
from shutil import which

from ansible.plugins.lookup import LookupBase


def index() -> str:
    """Return what is configured in pip's environment and files, else what pip was built with."""
    from pip._internal.configuration import Configuration
    from pip._internal.models.index import PyPI

    found = Configuration(isolated=False)
    found.load()
    merged: dict[str, t.Any] = {}
    for key, value in found.items():
        merged.update(value if isinstance(value, dict) else {key: value})  # pip 25 groups them by file
    places = (":env:", "download", "install", "global")
    return str(next(filter(None, (merged.get(f"{place}.index-url") for place in places)), PyPI.simple_url))


# the same for the pip of another interpreter
QUESTION = f"from __future__ import annotations\nimport typing as t\n{inspect.getsource(index)}\nprint(index())"


def ask_own_pip() -> str:
    """Return the answer of the pip that lives beside Ansible; far quicker than a process of its own."""
    try:
        return index()
    except Exception:  # noqa: BLE001 - pip's internals are not an interface: whatever goes wrong, another pip is asked
        return ""


def ask_other_pip(python: str) -> str:
    """Return the answer of the pip of another interpreter, "" when it has none."""
    try:
        said = subprocess.run([python, "-c", QUESTION], check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


class LookupModule(LookupBase):  # type: ignore[misc]
    """Asks the pip beside Ansible, then that of the first python3 on PATH."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        """Return the index URL as a list of one."""
        self.set_options(var_options=variables, direct=kwargs)
        found = ask_own_pip() or ask_other_pip(which("python3") or sys.executable)
        return [found.rstrip("/")]
