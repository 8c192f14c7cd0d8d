"""The specification: secrets leave it as digests, differences are named, docker gets safe arguments."""

from __future__ import annotations

import json

from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.spec import build, changes, create_argv, identity, printable, stored

KEY = "a-very-secret-key"


def spec_of(salt="salt", key="", **fields):
    raw = {"name": "chat", "model": "/models/m.gguf", "port": 8080, "api_key": key, **fields}
    service = parse(raw)
    launch = llama_server.launch(service, "/models/m.gguf", 2048, key)
    return build(service, launch, image="img:1", image_id="sha256:1", model_fingerprint="f", salt=salt)


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
