"""What the vllm_image module does on a host: keep the image, pull the published one, or build the one for CPUs.

Edge code: the pure parts are vllm_recipe and vllm_image_plan.
"""

from __future__ import annotations

import os
import typing as t

from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet import vllm_recipe
from ansible.module_utils.llmfleet.cpu_level import architecture
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.packaged.job import PackagedJob
from ansible.module_utils.llmfleet.packaged.removal import Leavings

LEAVINGS = Leavings(vllm_recipe.VllmRequest.slug, vllm_recipe.REPOSITORY, ("cache/vllm",))


def vllm_job(params: t.Mapping[str, t.Any], check_mode: bool, run: t.Callable[..., t.Any]) -> PackagedJob:
    """Return one run of the module: for GPUs the published image is pulled, for CPUs one is built."""
    cuda = params["variant"] == "cuda"
    if cuda and not params["tag"]:
        raise BadInput("variant cuda needs the tag of a published image; the plan gives the one that fits the GPUs.")
    asked = base.check_base(params["base"]) if params["base"] else ""
    request = vllm_recipe.VllmRequest(architecture(os.uname().machine), asked)
    published = [f"{row}:{params['tag']}" for row in params["repositories"]] if cuda else []
    why = "the published image fits the GPUs"
    return PackagedJob(params, check_mode, run, request, published, builds=not cuda, why=why)
