"""Images of ready-made programs that the project needs beside the engines: pulled, or built of packages."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.packaged import gateway, open_webui
from ansible.module_utils.llmfleet.packaged.base import Recipe

RECIPES: t.Mapping[str, Recipe] = {recipe.kind: recipe for recipe in (gateway.RECIPE, open_webui.RECIPE)}
"""Kind -> how its image is had. Imported one by one, as Ansible sends to hosts only what it sees imported."""
