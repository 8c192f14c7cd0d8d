"""Arguments are read by the new image before the running container is touched."""

from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.llmfleet import rehearsal
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR
from ansible.module_utils.llmfleet.timed_run import Answer

SPEC: dict[str, t.Any] = {
    "name": "chat",
    "engine": "llama_server",
    "image": "img",
    "argv": ["--model", "/models/m.gguf", "--api-key-file", f"{SECRETS_DIR}/api_key"],
    "env": {},
    "mounts": {"/models/m.gguf": "/srv/m.gguf"},
    "publish": "127.0.0.1:8080:8080",
    "memory": "",
    "user": "10001:10001",
    "restart_policy": "unless-stopped",
    "secrets": {"api_key": "digest"},
}
REFUSED = Answer(1, err="error: invalid argument: --nope\n")


def rehearse(answer: Answer, created: int = 0, **changes: t.Any) -> list[list[str]]:
    """Rehearse with an engine that says ``answer``; return what docker was asked."""
    asked: list[list[str]] = []

    def docker(argv, **_):
        asked.append(argv[1:])
        return (created, "", "") if argv[1] == "create" else (0, "", "")

    def timed(argv, seconds):
        assert seconds >= 60
        asked.append(argv[1:])
        return answer

    spec = {**SPEC, **changes}
    try:
        rehearsal.rehearse(Docker(docker), spec, "chat.next", "/srv/secrets", ENGINES[spec["engine"]], timed)
    finally:
        assert asked[-1] == ["rm", "--force", "chat.next"]
    return asked


def test_it_reads_the_new_arguments_with_the_new_files_and_serves_nobody():
    created, started, _ = rehearse(Answer(0, out="version: 0.5.0"))
    assert started == ["start", "--attach", "chat.next"]
    assert created[-len(SPEC["argv"]) - 1 :] == [*SPEC["argv"], "--version"]
    assert created[created.index("--network") + 1] == "none"
    assert created[created.index("--restart") + 1] == "no"
    assert "--publish" not in created
    assert any(f"dst={SECRETS_DIR}/api_key" in word for word in created)


def test_arguments_that_the_engine_refuses_are_an_error_that_says_who_still_serves():
    with pytest.raises(rehearsal.RefusedError) as caught:
        rehearse(REFUSED)
    assert caught.value.diagnosis["cause"] == "llama-server does not know the argument --nope"
    assert caught.value.log == REFUSED.err
    assert str(caught.value).endswith("What runs now serves on as before")


@pytest.mark.parametrize(
    ("answer", "created"),
    [
        (Answer(None, err=REFUSED.err), 0),
        (Answer(1, err="sh: --version: not found"), 0),
        (Answer(0, out=REFUSED.err), 0),
        (REFUSED, 125),
    ],
    ids=["no answer in time", "an image that knows no rehearsal", "it went well", "not even created"],
)
def test_only_what_the_engine_says_itself_counts(answer, created):
    rehearse(answer, created)


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"memory": "8g"}, False),
        ({"publish": "0.0.0.0:8080:8080"}, False),
        ({"argv": ["--model", "/models/m.gguf"]}, True),
        ({"image_id": "sha256:2"}, True),
        ({"env": {"A": "b"}}, True),
    ],
)
def test_what_the_running_container_has_shown_is_not_rehearsed(changes, needed):
    assert rehearsal.new_arguments(SPEC, {**SPEC, **changes}) is needed
    assert rehearsal.new_arguments(None, {**SPEC, **changes})


@pytest.mark.parametrize(
    ("entrypoint", "argv"),
    [
        ("vllm", ["serve", "/models/m", "--port", "8000"]),
        ("/bin/sh", ["-c", 'exec "$@"', "sh", "vllm", "serve", "/models/m", "--port", "8000"]),
    ],
    ids=["without a key", "with a key"],
)
def test_vllm_reads_its_arguments_with_its_own_parser(entrypoint, argv):
    created = rehearse(Answer(0), engine="vllm", entrypoint=entrypoint, argv=argv)[0]
    assert created[created.index("--entrypoint") + 1] == "python3"
    assert created[-4:] == ["serve", "/models/m", "--port", "8000"]
    compile(created[created.index("-c") + 1], "rehearsal", "exec")


def test_what_vllm_says_to_an_unknown_argument_is_understood():
    with pytest.raises(rehearsal.RefusedError, match="--nope 3"):
        rehearse(
            Answer(2, err="usage: vllm [-h] {serve} ...\nvllm: error: unrecognized arguments: --nope 3\n"),
            engine="vllm",
            argv=["serve", "/models/m", "--nope", "3"],
        )
    with pytest.raises(rehearsal.RefusedError, match="--max-model-len"):
        rehearse(
            Answer(2, err="vllm serve: error: argument --max-model-len: invalid human_readable_int value: 'x'\n"),
            engine="vllm",
            argv=["serve", "/models/m", "--max-model-len", "x"],
        )
