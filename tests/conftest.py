"""Let tests import module_utils and modules from the checkout, the way Ansible would."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils
from hypothesis import settings

# a busy machine makes any example slow now and then
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
sys.path[:0] = [str(ROOT / "library"), str(ROOT / "filter_plugins"), str(ROOT / "lookup_plugins")]
