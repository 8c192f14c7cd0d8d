"""What a host lacks for a service is said before anything changes, with the way to get it."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.wanted import resolve


def engine(images: t.Sequence[t.Any]) -> Docker:
    """Return a docker that has ``images``."""
    return Docker(lambda *_, **__: (0, json.dumps(images), "") if images else (1, "", "No such image"), "docker")


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([{"Id": "sha256:1"}], "model /m/x.gguf: there is no such file; .*playbooks/models.yml"),
        ([], "build or pull it first"),
    ],
)
def test_what_is_missing_is_named_with_the_way_to_get_it(images, sentence):
    service = parse({"name": "chat", "model": "org/x", "port": 8080})
    with pytest.raises(LlmfleetError, match=sentence):
        resolve(engine(images), service, image="x:1", model_path="/m/x.gguf", api_key="", salt="", foresee=False)
    spec, _ = resolve(engine([]), service, image="x:1", model_path="/m/x.gguf", api_key="", salt="", foresee=True)
    assert (spec["image_id"], spec["model_fingerprint"]) == ("", "")
