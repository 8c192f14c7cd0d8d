"""The specification: secrets leave it as digests, differences are named, docker gets safe arguments."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gpu_access import WAYS, docker_words
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.spec import (
    build,
    changes,
    create_argv,
    identity,
    printable,
    stored,
)

KEY = "a-very-secret-key"


def spec_of(salt="salt", key="", gpus="", gpu_ids=(), groups=(), **fields):
    raw = {"name": "chat", "model": "/models/m.gguf", "port": 8080, "api_key": key, **fields}
    service = parse(raw)
    launch = llama_server.launch(service, "/models/m.gguf", 2048, key, bool(gpus))
    made = {"image": "img:1", "image_id": "sha256:1", "model_fingerprint": "f", "salt": salt}
    return build(service, launch, **made, gpus=gpus, gpu_ids=gpu_ids, groups=groups)


def test_no_secret_reaches_label_argv_or_diff():
    spec = spec_of(key=KEY)
    assert KEY not in json.dumps(spec)
    assert KEY not in printable(spec)
    assert KEY not in " ".join(create_argv(spec, "chat.next", "/secrets"))
    assert "--api-key-file" in spec["argv"]


def test_the_same_key_has_the_same_digest_only_under_the_same_salt():
    assert spec_of(key=KEY) == spec_of(key=KEY)
    assert spec_of(key=KEY)["secrets"] != spec_of(key=KEY, salt="other")["secrets"]


def test_changes_are_named_without_revealing_secrets():
    assert changes(spec_of(key=KEY), spec_of(key="other-key")) == ["api_key: changed"]
    assert changes(spec_of(context_length=1024), spec_of(context_length=2048)) == [
        "argv: --ctx-size 1024 -> --ctx-size 2048"
    ]
    assert changes(spec_of(), spec_of(port=9090)) == ["publish: 127.0.0.1:8080:8080 -> 127.0.0.1:9090:8080"]
    assert changes(spec_of(), spec_of()) == []


def test_context_length_is_what_one_request_may_use():
    argv = spec_of(context_length=1000, parallel=4)["argv"]
    assert argv[argv.index("--ctx-size") + 1] == "4000"


def test_the_default_context_is_capped_by_the_models_training():
    argv = spec_of()["argv"]
    assert argv[argv.index("--ctx-size") + 1] == "2048"


def test_the_container_is_confined_by_default():
    argv = create_argv(spec_of(memory="2g"), "chat.next", "/secrets")
    text = " ".join(argv)
    for expected in (
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--user 10001:10001",
        "--restart unless-stopped",
        "--log-opt max-size=50m",
        "--publish 127.0.0.1:8080:8080",
        "--memory 2g --memory-swap 2g",
        "type=bind,src=/models/m.gguf,dst=/models/m.gguf,readonly",
    ):
        assert expected in text
    assert argv.index("img:1") < argv.index("--model")


def test_an_ipv6_address_is_bracketed():
    assert spec_of(bind="::1")["publish"] == "[::1]:8080:8080"


def test_a_comma_in_a_path_survives_dockers_csv():
    service = parse({"name": "chat", "model": "/a,b/m.gguf", "port": 1})
    launch = llama_server.launch(service, "/a,b/m.gguf", None, "")
    spec = build(service, launch, image="i", image_id="i", model_fingerprint="", salt="")
    assert 'type=bind,"src=/a,b/m.gguf",dst=/models/m.gguf,readonly' in create_argv(spec, "x", "/s")


def test_all_parts_of_a_split_model_are_mounted():
    launch = llama_server.launch(parse({"name": "c", "model": "x", "port": 1}), "/m/a-00001-of-00003.gguf", None, "")
    assert [(mount.source, mount.target) for mount in launch.mounts] == [("/m", "/models")]


def test_the_label_is_read_back():
    spec = spec_of(key=KEY)
    argv = create_argv(spec, "chat", "/s")
    labels = dict(arg.split("=", 1) for flag, arg in zip(argv, argv[1:]) if flag == "--label")
    assert stored({"Config": {"Labels": labels}}) == spec
    assert stored({"Config": {"Labels": None}}) is None
    assert stored(None) is None


def test_each_specification_has_its_own_secrets_folder():
    assert identity(spec_of(key=KEY)) != identity(spec_of(key="other-key"))


def test_a_service_on_the_cpu_is_specified_as_it_was_before_there_were_gpus():
    """The digest is that of the code before: an upgrade of llmfleet must not restart what runs."""
    spec = spec_of(key="a-very-secret-key", threads=4, memory="2g", args=["--no-warmup"])
    assert identity(spec) == "106f3650eb0c05ec"


@pytest.mark.parametrize("ids", [[], ["one", "two"]])
@pytest.mark.parametrize("gpus", WAYS)
def test_a_container_gets_its_gpus_as_the_engine_can_give_them(gpus, ids):
    spec = spec_of(gpus=gpus, gpu_ids=ids, groups=[44, 105] if gpus == "amd" else [])
    text = " ".join(create_argv(spec, "chat.next", "/s"))
    assert f" {' '.join(docker_words(gpus, ids))} " in text
    assert ("--group-add 44 --group-add 105" in text) is (gpus == "amd")
    before, hyphen, after = text.partition(" img:1 ")
    assert "--n-gpu-layers 999 --verbosity 4" in after
    assert "--n-gpu-layers" not in before.split("io.llmfleet.spec=")[0] + hyphen


@pytest.mark.parametrize(
    ("gpus", "groups", "digest"),
    [
        ("nvidia", [], "a05c148278fa05c5"),
        ("nvidia_cdi", [], "54dfb8ec89ba1928"),
        ("amd", [44, 105], "62795ae9628eecd6"),
    ],
)
def test_a_service_on_all_gpus_is_specified_as_it_was_before_it_could_choose(gpus, groups, digest):
    """The digests are those of the code before: an upgrade of llmfleet must not restart what runs."""
    assert identity(spec_of(gpus=gpus, groups=groups, key="a-very-secret-key", memory="2g")) == digest


def test_a_service_that_moves_to_the_gpu_says_so():
    assert changes(spec_of(), spec_of(gpus="nvidia")) == [
        "argv: (nothing) -> --n-gpu-layers 999 --verbosity 4",
        "gpus: (none) -> nvidia",
    ]
    assert changes(spec_of(gpus="nvidia"), spec_of(gpus="nvidia_cdi")) == ["gpus: nvidia -> nvidia_cdi"]


def test_only_some_layers_may_be_planned():
    argv = spec_of(gpus="nvidia", gpu_layers=20)["argv"]
    assert argv[argv.index("--n-gpu-layers") + 1] == "20"


def test_on_the_cpu_of_an_image_for_gpus_no_device_is_used():
    spec = spec_of(gpus="nvidia", device="cpu")
    assert spec["argv"][spec["argv"].index("--device") + 1] == "none"
    assert "--n-gpu-layers" not in spec["argv"]
    # its programs are linked against the driver's libraries
    assert "--gpus" in create_argv(spec, "chat", "/s")


def test_what_hides_the_proof_of_the_gpu_is_refused_there_only():
    with pytest.raises(BadInput, match="hides the log lines that prove the GPU is used"):
        spec_of(gpus="nvidia", args=["--log-disable"])
    assert spec_of(args=["--log-disable"])["argv"][-1] == "--log-disable"


@pytest.mark.parametrize(("level", "on_cpu", "on_gpu"), [("error", "1", "4"), ("info", "3", "4"), ("debug", "5", "5")])
def test_on_a_gpu_the_log_always_proves_it(level, on_cpu, on_gpu):
    for gpus, wanted in (("", on_cpu), ("nvidia", on_gpu)):
        argv = spec_of(gpus=gpus, log_level=level)["argv"]
        assert argv.count("--verbosity") == 1
        assert argv[argv.index("--verbosity") + 1] == wanted
    assert "--verbosity" not in spec_of()["argv"]
    assert "--verbosity" not in spec_of(gpus="nvidia", args=["-v"])["argv"]


def test_a_key_is_given_twice_where_a_single_one_would_be_printed_in_part():
    service = parse({"name": "chat", "model": "x", "port": 1, "api_key": KEY})
    assert llama_server.launch(service, "/m.gguf", None, KEY).secrets == {"api_key": KEY}
    assert llama_server.launch(service, "/m.gguf", None, KEY, True).secrets == {"api_key": f"{KEY}\n{KEY}"}
