"""Services as a Compose file: each thing a container is created with has its counterpart, and no secret is in it."""

from __future__ import annotations

import re
import typing as t

import pytest
import yaml
from ansible.module_utils.llmfleet.compose_export import (
    COMPOSE,
    EXAMPLE,
    Export,
    export,
    seal,
    untouched,
)
from ansible.module_utils.llmfleet.compose_health import Deployed
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.engines.vllm_gate import GATE
from ansible.module_utils.llmfleet.gpu_access import WAYS, compose_keys
from ansible.module_utils.llmfleet.plain_yaml import lines
from deployed_services import llama, vllm_service
from hypothesis import example, given
from hypothesis import strategies as st

KEY = "a-very-secret-key"


def read(made: Export) -> dict[str, t.Any]:
    """Return the Compose file as a reader of YAML sees it."""
    return t.cast("dict[str, t.Any]", yaml.safe_load(made.files[COMPOSE]))


def test_the_model_is_called_so_whatever_stands_beside_it():
    found = vllm_service(mounts=(Mount("/srv/x.jinja", "/files/chat_template/own/x"), Mount("/hub/m", "/models/qwen")))
    sources = [volume["source"] for volume in read(export([found]))["services"]["big"]["volumes"]]
    assert sources[:2] == ["${BIG_MODEL:-/hub/m}", "${BIG_MODEL_2:-/srv/x.jinja}"]


def test_everything_of_a_container_has_its_counterpart():
    deployed = llama(memory="2g", cpus=1.5, args=["--no-warmup"], env={"LANG": "C", "COST": "5$"})
    made = export([deployed])
    service = read(made)["services"]["chat"]
    assert service == made.data["services"]["chat"]
    assert service.pop("command") == deployed.spec["argv"]
    assert service == {
        "image": "${CHAT_IMAGE:-llmfleet/llama.cpp:cpu-1}",
        "pull_policy": "never",
        "environment": {"LANG": "C", "COST": "5$$"},
        "ports": ["${CHAT_BIND:-127.0.0.1}:${CHAT_PORT:-8080}:8080"],
        "volumes": [
            {
                "type": "bind",
                "source": "${CHAT_MODEL:-/models/m.gguf}",
                "target": "/models/m.gguf",
                "read_only": True,
                "bind": {"create_host_path": False},
            }
        ],
        "mem_limit": "2g",
        "cpus": 1.5,
        "memswap_limit": "2g",
        "user": "10001:10001",
        "read_only": True,
        "tmpfs": ["/tmp:rw,noexec,nosuid,size=64m"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
        "logging": {"driver": "json-file", "options": {"max-size": "50m", "max-file": "3"}},
    }


def test_what_vllm_needs_beyond_that():
    made = export([vllm_service(KEY, [Mount("/hub/snap", "/models/qwen"), Mount("/hub/blobs", "/models/blobs")])])
    service = read(made)["services"]["big"]
    assert service["entrypoint"] == ["/bin/sh"]
    # Compose would put variables of its own shell into what is meant for the one in the container
    assert service["command"][:2] == [
        "-c",
        'VLLM_API_KEY="$$(cat /run/llmfleet/api_key)" && export VLLM_API_KEY && exec "$$@"',
    ]
    assert service["shm_size"] == "8192m"
    assert service["tmpfs"] == ["/tmp:rw,noexec,nosuid,size=1024m"]
    assert [(v["source"], v["target"], v["read_only"]) for v in service["volumes"]] == [
        ("${BIG_MODEL:-/hub/blobs}", "/models/blobs", True),
        ("${BIG_MODEL_2:-/hub/snap}", "/models/qwen", True),
        ("${BIG_CACHE:-/var/lib/llmfleet/cache/vllm}", "/cache", False),
    ]
    assert service["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "pull_policy" not in service
    # the doorkeeper is no secret: it comes along
    assert service["configs"] == [{"source": "llmfleet_gate", "target": "/run/llmfleet/llmfleet_gate.py"}]
    assert read(made)["configs"] == {"llmfleet_gate": {"file": "./llmfleet_gate.py"}}
    assert made.files["llmfleet_gate.py"].endswith(GATE)


def test_secrets_are_files_that_the_template_names():
    made = export([llama(key=KEY), vllm_service(KEY)])
    assert KEY not in "".join(made.files.values())
    data = read(made)
    assert data["services"]["chat"]["secrets"] == [{"source": "chat_api_key", "target": "/run/llmfleet/api_key"}]
    assert data["secrets"] == {
        "chat_api_key": {"file": "${CHAT_API_KEY_FILE:-./secrets/chat/api_key}"},
        "big_api_key": {"file": "${BIG_API_KEY_FILE:-./secrets/big/api_key}"},
    }
    assert made.secrets == [
        {"service": "big", "name": "api_key", "file": "./secrets/big/api_key"},
        {"service": "chat", "name": "api_key", "file": "./secrets/chat/api_key"},
    ]
    shown = made.files[EXAMPLE]
    assert "openssl rand -hex 24 | sudo install -D -m 0400 -o 10001 -g 10001 /dev/stdin ./secrets/chat/api_key" in shown
    assert "/var/lib/llmfleet/services/chat/0123/api_key ./secrets/chat/api_key" in shown
    # neither digests nor their salt, by which a key could be guessed
    assert "salt" not in "".join(made.files.values())
    assert deployed_digests(llama(key=KEY)).isdisjoint(re.findall(r"\w{20,}", made.files[COMPOSE]))


def deployed_digests(deployed: Deployed) -> set[str]:
    return set(deployed.spec["secrets"].values())


def test_a_key_on_a_gpu_stands_twice_in_its_file():
    assert "rand -hex 24 | sed p | sudo" in export([llama(key=KEY, gpus="nvidia")]).files[EXAMPLE]
    assert "sed p" not in export([vllm_service(KEY)]).files[EXAMPLE]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--hf-token", KEY], ["--hf-token", "${CHAT_HF_TOKEN:?set it in .env}"]),
        ([f"--hf-token={KEY}"], ["--hf-token=${CHAT_HF_TOKEN:?set it in .env}"]),
        (["-hft", KEY], ["-hft", "${CHAT_HFT:?set it in .env}"]),
        (["--proxy", f"http://me:{KEY}@proxy"], ["--proxy", "${CHAT_PROXY:?set it in .env}"]),
        (["--api-key-file2", "/x"], ["--api-key-file2", "/x"]),
        (["--hf-token", "--verbose"], ["--hf-token", "--verbose"]),
    ],
)
def test_what_looks_like_a_secret_in_arguments_is_left_out(args, words):
    made = export([llama(args=args)])
    assert made.data["services"]["chat"]["command"][-len(words) :] == words
    assert KEY not in "".join(made.files.values())
    assert made.files[EXAMPLE].count("=\n") == sum(":?" in word for word in words)


def test_what_looks_like_a_secret_in_the_environment_is_left_out():
    deployed = llama(env={"https_proxy": f"http://me:{KEY}@proxy:3128", "TOKENIZERS_PARALLELISM": "false"})
    # what an inventory may not hold, a label of another release might
    deployed.spec["env"]["HF_TOKEN"] = KEY
    made = export([deployed])
    assert made.data["services"]["chat"]["environment"] == {
        "HF_TOKEN": "${CHAT_HF_TOKEN:?set it in .env}",
        "TOKENIZERS_PARALLELISM": "false",
        "https_proxy": "${CHAT_HTTPS_PROXY:?set it in .env}",
    }
    assert KEY not in "".join(made.files.values())


@pytest.mark.parametrize("ids", [(), ("one", "two")])
@pytest.mark.parametrize("gpus", WAYS)
def test_every_way_to_a_gpu_reaches_the_file(gpus, ids):
    service = read(export([llama(gpus=gpus, gpu_ids=ids)]))["services"]["chat"]
    for key, value in compose_keys(gpus, ids).items():
        assert service[key] == value
    assert service.get("group_add", []) == (["44", "993"] if gpus in ("amd", "intel") else [])


def test_no_services_make_an_empty_file():
    assert read(export([])) == {"services": {}}


def test_an_image_without_a_program_that_could_ask_has_no_healthcheck():
    made = export([llama(bind="0.0.0.0", key=KEY)])
    assert "healthcheck" not in made.data["services"]["chat"]
    assert made.unprobed == ["chat"]
    assert "# No healthcheck: the image holds no program" in made.files[COMPOSE]
    assert "curl -fsS http://127.0.0.1:8080/health" in made.files[COMPOSE]


@pytest.mark.parametrize(
    ("image", "labels", "policy"),
    [
        ("llmfleet/llama.cpp:cpu-1", {"io.llmfleet.build-key": "1"}, "never"),
        ("llmfleet/vllm:cpu-1", {"io.llmfleet.vllm-key": "1"}, "never"),
        ("registry.lan:5000/llmfleet/llama.cpp:cpu-1", {"io.llmfleet.build-key": "1"}, None),
        ("localhost/llama.cpp:cpu-1", {"io.llmfleet.build-key": "1"}, None),
        ("someone/llama.cpp:1", {}, None),
        ("someone/llama.cpp:1", None, None),
    ],
)
def test_an_image_of_no_registry_is_never_pulled(image, labels, policy):
    deployed = llama(image={"Labels": labels})
    deployed.spec["image"] = image
    made = export([deployed])
    assert made.data["services"]["chat"].get("pull_policy") == policy
    assert ("docker save" in made.files[EXAMPLE]) is bool(policy)


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0", "10.0.0.7", "::1"])
def test_it_listens_where_the_service_does(bind):
    deployed = llama(bind=bind, key=KEY)
    (port,) = export([deployed]).data["services"]["chat"]["ports"]
    assert re.sub(r"\$\{\w+:-(.*?)\}(?=:)", r"\1", port) == deployed.spec["publish"]


def test_paths_that_variables_cannot_hold_stay_literal():
    made = export([llama(path="/srv/${x}/m.gguf")])
    assert made.data["services"]["chat"]["volumes"][0]["source"] == "/srv/$${x}/m.gguf"
    assert "CHAT_MODEL" not in made.files[EXAMPLE]
    assert "CHAT_MODEL='/srv/my models/m.gguf'" in export([llama(path="/srv/my models/m.gguf")]).files[EXAMPLE]
    assert """CHAT_MODEL="/srv/ann's/m.gguf\"""" in export([llama(path="/srv/ann's/m.gguf")]).files[EXAMPLE]


def test_the_same_services_give_the_same_files_in_any_order():
    one, two = llama("one"), llama("two", port=8081)
    assert export([one, two]).files == export([two, one]).files


def test_a_file_changed_by_hand_is_known():
    for text in export([llama(key=KEY), vllm_service(KEY)]).files.values():
        assert untouched(text)
        assert not untouched(text + "\n")
        assert not untouched(text[:-9] + "#" + text[-8:])
    assert not untouched("services: {}\n")
    assert not untouched("")


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.recursive(WORDS | st.integers() | st.booleans(), lambda x: st.lists(x) | st.dictionaries(WORDS, x)))
@example(
    {"on": "off", "1": "1", "~": "0x1f", "a": "1_0", "b": "2026-01-01", "c": "😀\x7f\x85", "--": "---", "-": "- a"}
)
@example([[[], {}], {"a": [{"b": {}}]}, "", "null", "y", "1:30", "a: b", "a #b", "/x/..", "--model"])
def test_any_reader_gets_back_what_was_written(data):
    if isinstance(data, (dict, list)) and data:
        assert yaml.safe_load("\n".join(lines(data))) == data


def test_variables_of_different_services_differ():
    made = export([llama("a-b"), llama("a.b", port=8081)])
    assert "A_B_PORT=8080" in made.files[EXAMPLE]
    assert "A_B_2_PORT=8081" in made.files[EXAMPLE]


@given(WORDS)
def test_any_text_is_known_by_its_seal(text):
    assert untouched(seal(text))
