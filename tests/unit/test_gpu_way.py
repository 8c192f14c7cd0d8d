"""The way to a GPU is what the running engine can do, and stays what it is while that works."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.gpu_way import Engine, choose, device_groups, kept, look, nodes_of, settle

ALL, ONE, TWO = "nvidia.com/gpu=all", "nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"
OLD = Engine(answers=True, version="20.10.24", devices=frozenset(), hook=True)
NEW = Engine(answers=True, version="28.5.2", cdi=True, devices=frozenset({ALL, ONE}), runtimes=("nvidia",), hook=True)


def docker(info: t.Any, rc: int = 0) -> Docker:
    """Return a docker whose engine says ``info``."""
    return Docker(lambda *_, **__: (rc, json.dumps(info), ""), "docker")


def found(name: str) -> str:
    return f"/usr/bin/{name}"


def nothing(name: str) -> None:
    """Find no program."""


def test_an_engine_without_an_answer_is_told_from_one_without_gpus():
    assert look(docker({"ServerErrors": ["Cannot connect"]})) == Engine()
    assert look(docker({}, rc=1)) == Engine()
    assert look(docker([])) == Engine()
    assert look(docker({"ServerVersion": "20.10.24"}), nothing) == Engine(
        answers=True, version="20.10.24", devices=frozenset()
    )


def test_a_new_engine_lists_its_devices():
    info = {"ServerVersion": "28.5.2", "CDISpecDirs": ["/etc/cdi"], "Runtimes": {"runc": {}, "nvidia": {}}}
    engine = look(docker({**info, "DiscoveredDevices": [{"Source": "cdi", "ID": ALL}]}), found)
    assert (engine.devices, engine.runtimes, engine.hook) == ({ALL}, ("runc", "nvidia"), True)
    assert look(docker(info), nothing).devices == set()


@pytest.mark.parametrize(
    "text",
    [
        'kind: nvidia.com/gpu\ndevices:\n    - name: "0"\n    - containerEdits: {}\n      name: GPU-1\n',
        json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"containerEdits": {}, "name": "GPU-1"}]}),
    ],
)
def test_of_an_older_engine_the_lists_are_read(tmp_path, text):
    (tmp_path / "nvidia.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("kind: example.com/x\ndevices: [{name: GPU-2}]\n")
    info = {"ServerVersion": "26.1.5", "CDISpecDirs": [str(tmp_path)]}
    engine = look(docker(info), nothing)
    assert engine.has("nvidia_cdi", ["0"])
    assert engine.has("nvidia_cdi", ["0", "GPU-1"])
    assert not engine.has("nvidia_cdi", ["GPU-2"])
    # one that is new enough to say what it found is believed
    assert not look(docker({**info, "ServerVersion": "28.3.0"}), nothing).has("nvidia_cdi", ["0"])


def test_what_docker_desktop_has_is_not_to_be_seen_from_here():
    engine = look(docker({"ServerVersion": "28.5.2", "OperatingSystem": "Docker Desktop", "CDISpecDirs": ["/x"]}))
    assert engine.hook
    assert engine.has("nvidia_cdi", ["GPU-1"])


@pytest.mark.parametrize(
    ("planned", "engine", "ids", "way"),
    [
        ("nvidia_cdi", NEW, (), "nvidia_cdi"),
        ("nvidia_cdi", NEW, ("GPU-1",), "nvidia_cdi"),
        # the list does not name it, the hook takes any
        ("nvidia_cdi", NEW, ("GPU-2",), "nvidia"),
        ("nvidia_cdi", OLD, (), "nvidia"),
        ("nvidia_cdi", Engine(), (), "nvidia"),
        # the device list was switched off by the user
        ("nvidia", NEW, (), "nvidia"),
        ("nvidia", Engine(answers=True, runtimes=("runc", "nvidia")), (), "nvidia_runtime"),
        ("nvidia", Engine(answers=True, runtimes=("runc",)), (), "nvidia"),
        ("amd", NEW, ("/dev/dri/renderD128",), "amd"),
        ("", NEW, (), ""),
    ],
)
def test_auto_takes_what_the_engine_can_do(planned, engine, ids, way):
    assert choose(planned, "auto", ids, engine) == way


@pytest.mark.parametrize(
    ("access", "engine", "way"),
    [
        ("gpus", OLD, "nvidia"),
        ("cdi", NEW, "nvidia_cdi"),
        ("runtime", NEW, "nvidia_runtime"),
        # nothing is known before there is an engine
        ("cdi", Engine(), "nvidia_cdi"),
    ],
)
def test_what_is_asked_for_is_taken(access, engine, way):
    assert choose("nvidia", access, (), engine) == way


def test_ways_of_other_vendors_are_not_chosen():
    assert choose("intel", "cdi", (), NEW) == "intel"


@pytest.mark.parametrize(
    ("access", "ids", "engine", "words"),
    [
        ("cdi", (), OLD, ["docker 20.10.24 has device lists (CDI) off", 'nvidia_container_toolkit_cdi: "true"']),
        ("cdi", ("GPU-2",), NEW, [f"knows no device {TWO}", f"(it knows: {ONE}, {ALL})", "playbooks/host.yml"]),
        ("runtime", (), OLD, ["llm_service_gpu_access is runtime, but docker 20.10.24 knows no runtime `nvidia`"]),
    ],
)
def test_what_the_engine_does_not_have_is_refused(access, ids, engine, words):
    with pytest.raises(LlmfleetError) as refusal:
        choose("nvidia", access, ids, engine)
    for word in words:
        assert word in str(refusal.value)


def spec(gpus: str, **more: t.Any) -> dict[str, t.Any]:
    return {"name": "chat", "argv": ["--model", "m"], "gpus": gpus, "salt": "s", "secrets": {}, **more}


def test_another_way_alone_restarts_nothing():
    assert kept(spec("nvidia_cdi"), spec("nvidia"), NEW)["gpus"] == "nvidia"
    assert kept(spec("nvidia"), spec("nvidia_cdi"), NEW)["gpus"] == "nvidia_cdi"


@pytest.mark.parametrize(
    ("wanted", "before", "engine"),
    [
        # something else changes: then the better way comes along
        (spec("nvidia_cdi", argv=["--model", "n"]), spec("nvidia"), NEW),
        (spec("nvidia_cdi", gpu_ids=["GPU-1"]), spec("nvidia"), NEW),
        # the old way does not work any more
        (spec("nvidia"), spec("nvidia_cdi"), OLD),
        (spec("nvidia"), spec("nvidia_runtime"), OLD),
        # it ran on the CPU, or not at all
        (spec("nvidia"), {key: value for key, value in spec("").items() if key != "gpus"}, NEW),
        (spec("nvidia"), None, NEW),
        (spec("amd"), spec("nvidia"), NEW),
    ],
)
def test_the_new_way_is_taken_where_it_matters(wanted, before, engine):
    assert kept(wanted, before, engine) is wanted


def test_without_a_service_the_way_is_settled_by_the_engine():
    assert settle(docker({"ServerVersion": "20.10.24"}), "nvidia_cdi") == "nvidia"
    assert settle(docker({}, rc=1), "amd") == "amd"


def test_device_nodes_are_found_by_their_address(tmp_path):
    for address, node in (("0000:03:00.0", "renderD129"), ("0000:09:00.0", "renderD128")):
        (tmp_path / f"sys/bus/pci/devices/{address}/drm/{node}").mkdir(parents=True)
        (tmp_path / f"sys/bus/pci/devices/{address}/drm/card0").mkdir()
    assert nodes_of("amd", ["0000:03:00.0"], str(tmp_path)) == ["/dev/dri/renderD129"]
    assert nodes_of("nvidia", ["GPU-1"]) == ["GPU-1"]
    with pytest.raises(LlmfleetError, match=r"GPU 0000:0a:00.0 has no device node"):
        nodes_of("intel", ["0000:0a:00.0"], str(tmp_path))


def test_groups_are_those_of_the_device_nodes(tmp_path):
    node = tmp_path / "renderD128"
    node.write_text("")
    assert device_groups("nvidia", [str(node)]) == []
    assert node.stat().st_gid in device_groups("intel", [str(node)])
