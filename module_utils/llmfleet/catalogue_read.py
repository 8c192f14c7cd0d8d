"""The catalogue of models, read on the controller: `model: qwen3-8b` becomes what the service's engine needs."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

from ansible.module_utils.llmfleet.errors import BadInput

FOLDER = Path(__file__).resolve().parents[2] / "catalog"

_NO_NAME = re.compile(r"tiny|[^@]*/.*", re.DOTALL)
"""What is no name of the catalogue: paths, addresses and repositories have a slash before any revision."""


def resolve(raw_services: t.Any, overlay: t.Mapping[str, t.Any] | None = None, folder: Path = FOLDER) -> t.Any:
    """Return ``raw_services`` with the names of the catalogue replaced by the models they stand for.

    ``overlay``: entries of the user's, which go before those of the project. Raises BadInput for names that are not
    there and entries that are wrong. The files are read only when a service names a model that way.
    """
    if not isinstance(raw_services, list) or not any(map(_has_name, raw_services)):
        return raw_services
    # not on the controller's path in every process: Ansible loads filters in each of its workers
    from ansible.module_utils.llmfleet import catalogue

    try:
        texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yml"))}
    except OSError as error:
        raise BadInput(f"the catalogue of models in {folder} cannot be read: {error.strerror}") from None
    return catalogue.resolve(raw_services, catalogue.load(texts, overlay or {}))


def _has_name(service: t.Any) -> bool:
    if not isinstance(service, dict):
        return False
    models = service.get("models")
    return any(map(_is_name, (service.get("model"), *(models.values() if isinstance(models, dict) else ()))))


def _is_name(model: t.Any) -> bool:
    return isinstance(model, str) and bool(model) and not _NO_NAME.fullmatch(model)
