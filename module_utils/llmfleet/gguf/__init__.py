"""GGUF model files: what a model is and whether its file is whole, from the header alone.

Reading over HTTP is in ``gguf.remote``, which most users of this need not load.
"""

from __future__ import annotations

from ansible.module_utils.llmfleet.gguf.header import GgufHeader, Tensor, check_start, read_header
from ansible.module_utils.llmfleet.gguf.parts import join, part_names, read_model
from ansible.module_utils.llmfleet.gguf.summary import summary

__all__ = [
    "GgufHeader",
    "Tensor",
    "check_start",
    "join",
    "part_names",
    "read_header",
    "read_model",
    "summary",
]
