"""Let tests import module_utils and modules from the checkout, the way Ansible would."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import ansible.module_utils
from hypothesis import settings

# A busy machine makes any example slow now and then. `make test` tries the same examples every time, so that it says
# something about the change at hand; `make test-full` looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("new", deadline=None)
settings.load_profile(os.environ.get("LLMFLEET_EXAMPLES", "same"))

ROOT = Path(__file__).resolve().parent.parent
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
sys.path[:0] = [str(ROOT / "library"), str(ROOT / "filter_plugins"), str(ROOT / "lookup_plugins")]
