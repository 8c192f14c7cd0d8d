#!/usr/bin/env python3
"""Run a module from the checkout in a process of its own: run_module.py NAME JSON [--check]; prints its JSON result."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import conftest  # noqa: F401 - makes the checkout importable


def main() -> None:
    """Run the module."""
    from ansible.module_utils.testing import patch_module_args

    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    with patch_module_args({**arguments, "_ansible_check_mode": "--check" in sys.argv}):
        importlib.import_module(name).main()


if __name__ == "__main__":
    main()
