"""A service in a venv: its specification, the text of its unit, and the unit in docker's words."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.llmfleet import device_check
from ansible.module_utils.llmfleet.engines import vllm
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.spec import identity
from ansible.module_utils.llmfleet.venv import unit
from ansible.module_utils.llmfleet.venv.service_spec import Place, build, endpoint_of
from ansible.module_utils.llmfleet.venv.systemd import Systemd, UnitsAsContainers, exit_code, status_of

PLACE = Place("/opt/llmfleet/vllm-cpu-0", "llmfleet-vllm", "/var/lib/llmfleet/cache")
MODEL = "/var/lib/llmfleet/models/tiny"


def service(**fields):
    return parse({"name": "chat", "engine": "vllm", "runtime": "venv", "model": MODEL, "port": 8001, **fields})


def spec(place=PLACE, key="", model=MODEL, salt="salt", **fields):
    mounts = (Mount(model, vllm.target_of(model)),)
    one = service(**({"api_key": key} if key else {}), **fields)
    launch = vllm.launch(one, model, 4096, key, bool(place.gpus), mounts=mounts)
    return build(one, launch, place, model_fingerprint="f", salt=salt)


def lines(made, secrets="/secrets"):
    return unit.render(made, secrets).splitlines()


def test_the_containers_places_become_the_hosts():
    made = spec()
    assert made["argv"][:3] == ["/opt/llmfleet/vllm-cpu-0/bin/vllm", "serve", MODEL]
    assert made["env"]["HF_HOME"] == "/var/lib/llmfleet/cache/vllm-venv/huggingface"
    assert made["env"]["PATH"].startswith("/opt/llmfleet/vllm-cpu-0/bin:")
    assert made["writes"] == ["/var/lib/llmfleet/cache/vllm-venv"]
    text = json.dumps(made)
    assert "/models/tiny" not in text.replace(MODEL, "")
    assert '"/cache' not in text


def test_it_listens_where_the_service_is_published_and_nowhere_else():
    argv = spec()["argv"]
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--port") + 1] == "8001"
    public = spec(bind="0.0.0.0", key="k")
    assert endpoint_of(public) == ("127.0.0.1", 8001)
    assert public["publish"] == "0.0.0.0:8001:8001"
    assert endpoint_of(spec(bind="::1")) == ("[::1]", 8001)
    # what its processes say to each other stays on the host
    assert {spec()["env"][name] for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")} == {"lo"}


def test_users_words_win_over_ours():
    assert spec(env={"NCCL_SOCKET_IFNAME": "ib0"})["env"]["NCCL_SOCKET_IFNAME"] == "ib0"


def test_only_secrets_tell_that_a_key_changed_and_no_key_stands_in_it():
    one, other = spec(key="first-key"), spec(key="other-key")
    assert one["argv"] == other["argv"]
    assert one["secrets"]["api_key"] != other["secrets"]["api_key"]
    assert spec(key="first-key") == one
    for text in (json.dumps(one), unit.render(one, "/secrets")):
        assert "first-key" not in text


def test_a_unit_finds_its_secrets_where_they_are_now():
    made = spec(key="k")
    text = unit.render(made, "/var/lib/llmfleet/units/chat/0")
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert 'VLLM_API_KEY=\\"$$(cat /var/lib/llmfleet/units/chat/0/api_key)\\"' in command
    assert 'Environment="PYTHONPATH=/var/lib/llmfleet/units/chat/0"' in text
    assert identity(made) == identity(spec(key="k"))


def test_the_specification_is_read_back_from_the_unit():
    made = spec(key="k", args=["--some-flag", 'a "quoted" 100% $HOME \\ line\nand more'])
    assert unit.stored(unit.render(made, "/secrets")) == made
    assert unit.stored("[Service]\nExecStart=/bin/true\n") is None
    assert unit.stored("[X-Llmfleet]\nSpec={torn\n") is None


@pytest.mark.parametrize(
    ("word", "command", "text"),
    [
        ("plain", True, '"plain"'),
        ("100% $HOME", True, '"100%% $$HOME"'),
        ("100% $HOME", False, '"100%% $HOME"'),
        ('a "b" \\c\nd\te', True, '"a \\"b\\" \\\\c\\nd\\te"'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word, command, text):
    assert unit.quoted(word, command) == text


def test_a_service_on_the_cpu_sees_no_devices_and_one_on_gpus_only_theirs():
    assert "PrivateDevices=yes" in lines(spec())
    gpu = lines(spec(Place(**{**vars(PLACE), "gpus": "nvidia", "visible": ("GPU-1", "GPU-2")})))
    assert "DevicePolicy=closed" in gpu
    assert "DeviceAllow=char-nvidia* rw" in gpu
    assert "PrivateDevices=yes" not in gpu
    assert 'Environment="CUDA_VISIBLE_DEVICES=GPU-1,GPU-2"' in gpu


def test_limits_and_what_is_started_when():
    text = lines(spec(memory="8g"))
    assert {"MemoryMax=8G", "MemorySwapMax=0", "Restart=always", "NoNewPrivileges=yes", "User=llmfleet-vllm"} <= set(
        text
    )
    assert any(line.startswith("TemporaryFileSystem=/dev/shm:") and "size=8192M" in line for line in text)
    assert not [line for line in lines(spec()) if line.startswith("Memory")]
    assert "MemoryMax=1000" in lines(spec(memory="1000b"))


def test_a_model_in_a_home_is_shown_to_the_unit():
    assert 'BindReadOnlyPaths="/home/ann/tiny"' in lines(spec(model="/home/ann/tiny"))
    assert not [line for line in lines(spec()) if line.startswith("Bind")]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"engine": "llama_server", "model": "tiny"}, "`runtime: venv` is for engine vllm"),
        ({"image": "mine:1"}, "`image` contradicts `runtime: venv`"),
        ({"runtime": "vnv"}, "did you mean `venv`"),
    ],
)
def test_what_cannot_run_so_is_refused(fields, words):
    with pytest.raises(BadInput, match=words):
        service(**fields)


class Host:
    """Answers systemctl and journalctl."""

    def __init__(self, journal="", version="252 (252.1)", **said):
        self.said = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "0", **said}
        self.journal, self.version, self.calls = journal, version, []

    def __call__(self, argv, **_options):
        self.calls.append(argv)
        if argv[0] == "journalctl":
            return 0, self.journal, ""
        if argv[1] == "--version":
            return 0, f"systemd {self.version}\n+PAM", ""
        return 0, "".join(f"{name}={value}\n" for name, value in self.said.items()), ""


def seen(**said):
    return UnitsAsContainers(Systemd(Host(**said))).inspect("container", "chat")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"ActiveState": "active"}, "running"),
        ({"ActiveState": "activating", "SubState": "start"}, "running"),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, "restarting"),
        ({"ActiveState": "activating", "SubState": "auto-restart-queued"}, "restarting"),
        ({"ActiveState": "failed"}, "exited"),
        ({"ActiveState": "inactive"}, "exited"),
        ({"ActiveState": "deactivating"}, "exited"),
    ],
)
def test_a_unit_has_the_states_of_a_container(said, status):
    assert status_of(said) == status
    assert seen(**said)["State"]["Status"] == status


def test_how_a_unit_ended():
    assert exit_code({"ExecMainCode": "1", "ExecMainStatus": "3"}) == 3
    assert exit_code({"ExecMainCode": "2", "ExecMainStatus": "9"}) == 137
    ended = seen(ActiveState="failed", Result="oom-kill", ExecMainCode="2", ExecMainStatus="9", NRestarts="4")
    assert ended["State"]["OOMKilled"]
    assert ended["RestartCount"] == 4
    assert seen(LoadState="not-found") is None


def test_the_start_of_a_unit_is_told_in_the_same_words_each_time():
    view = UnitsAsContainers(Systemd(Host(ExecMainStartTimestampMonotonic="1000000")))
    first, again = (view.inspect("container", "chat")["State"]["StartedAt"] for _ in range(2))
    assert first == again


def test_the_log_of_a_unit_is_that_of_this_start():
    host = Host("line\n")
    view = UnitsAsContainers(Systemd(host))
    view.since = 1000.5
    assert view.attempt("logs", "--tail", "400", "chat") == (0, "line\n", "")
    assert host.calls[-1][-4:] == ["--lines", "400", "--since", "@1000.500"]
    assert "_SYSTEMD_UNIT=llmfleet-vllm-chat.service" in host.calls[-1]
    assert view.attempt("events", "chat")[0] != 0


def test_level_device_is_proven_by_the_journal():
    log = (
        "INFO Initializing a V1 LLM engine (v0.33.0) with config: device_config=cuda, x\nModel loading took 15.3 GiB\n"
    )
    view = UnitsAsContainers(Systemd(Host(log, ExecMainStartTimestampMonotonic="5000000")))
    proof = device_check.check_device(view, view.inspect("container", "chat"), 0, vllm)
    assert proof == "cuda, 15.3 GiB of weights"


def test_a_host_with_an_old_systemd_is_refused(monkeypatch):
    monkeypatch.setattr("os.path.isdir", lambda _path: True)
    Systemd(Host(version="240")).check()
    with pytest.raises(LlmfleetError, match="needs systemd 240 or newer, and this host has 239"):
        Systemd(Host(version="239 (239-1)")).check()


def test_a_host_that_systemd_did_not_start_is_refused(monkeypatch):
    monkeypatch.setattr("os.path.isdir", lambda _path: False)
    with pytest.raises(LlmfleetError, match="runs without"):
        Systemd(Host()).check()
