"""Memory of containers, from control groups, docker and the driver of GPUs."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.llmfleet import container_usage
from ansible.module_utils.llmfleet.container_usage import by_cgroup, gpu_memory, memory, size_of
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.timed_run import Answer

V2 = "0::/system.slice/docker-abc.scope\n"
V1 = "11:cpu,cpuacct:/docker/abc\n9:memory:/docker/abc\n0::/\n"
HYBRID = "9:memory:/docker/abc\n0::/docker/abc\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.5MiB", 13107200),
        ("1GiB ", 1 << 30),
        ("512B", 512),
        ("2kB", 2000),
        ("1.5GB", 1_500_000_000),
        ("3KiB", 3072),
        ("0B", 0),
        ("--", None),
        ("", None),
    ],
)
def test_dockers_words_for_sizes(text, expected):
    assert size_of(text) == expected


def machine(root, groups, folder="", usage="", stat=""):
    """Write what the kernel tells of process 7."""
    (root / "proc" / "7").mkdir(parents=True)
    (root / "proc" / "7" / "cgroup").write_text(groups)
    if folder:
        place = root / "sys" / "fs" / "cgroup" / folder
        place.mkdir(parents=True)
        (place / usage).write_text("5000\n")
        (place / "memory.stat").write_text(stat)


def test_cached_files_out_of_use_are_not_counted(tmp_path):
    machine(tmp_path, V2, "system.slice/docker-abc.scope", "memory.current", "anon 1\ninactive_file 1500\n")
    assert by_cgroup(7, f"{tmp_path}/") == 3500


@pytest.mark.parametrize("groups", [V1, HYBRID])
def test_control_groups_1_have_a_hierarchy_of_their_own(tmp_path, groups):
    machine(
        tmp_path, groups, "memory/docker/abc", "memory.usage_in_bytes", "inactive_file 1\ntotal_inactive_file 2000\n"
    )
    assert by_cgroup(7, f"{tmp_path}/") == 3000


@pytest.mark.parametrize("groups", ["", "0::/\n", "0::/../other\n", "nonsense\n", "0::/not/there\n"])
def test_a_group_that_is_not_the_containers_tells_nothing(tmp_path, groups):
    machine(tmp_path, groups)
    assert by_cgroup(7, f"{tmp_path}/") is None


def test_docker_is_asked_where_the_kernel_does_not_tell(monkeypatch):
    monkeypatch.setattr(container_usage, "by_cgroup", {1: 100, 2: None, 3: None, 4: None}.get)
    asked = []

    def run(argv, **_):
        asked.append(argv[6:])
        rows = [{"ID": "b", "MemUsage": "2KiB / 1GiB"}, {"ID": "c", "MemUsage": "0B / 0B"}]
        return 0, "\n".join(map(json.dumps, rows)), ""

    assert memory(Docker(run), {"a": 1, "b": 2, "c": 3, "x.service": 4}) == {"a": 100, "b": 2048}
    assert asked == [["b", "c"]]
    assert memory(Docker(lambda *_, **__: (1, "", "no")), {"b": 2}) == {}
    assert memory(Docker(lambda *_, **__: pytest.fail("nothing to ask")), {}) == {}


SMI = """<?xml version="1.0" ?>
<nvidia_smi_log>
<gpu id="0"><uuid>GPU-00000000-0000-0000-0000-000000000001</uuid><processes>
<process_info><pid>11</pid><type>C</type><process_name>a</process_name><used_memory>300 MiB</used_memory></process_info>
<process_info><pid>99</pid><type>C</type><process_name>b</process_name><used_memory>900 MiB</used_memory></process_info>
</processes></gpu>
<gpu id="1"><uuid>GPU-00000000-0000-0000-0000-000000000002</uuid>
<processes>
<process_info><pid>12</pid><type>C</type><process_name>a</process_name><used_memory>200 MiB</used_memory></process_info>
<process_info><pid>11</pid><type>C</type><process_name>a</process_name><used_memory>100 MiB</used_memory></process_info>
</processes></gpu></nvidia_smi_log>
"""


def processes(root, **groups):
    """Write the control groups of processes."""
    for pid, group in groups.items():
        (root / "proc" / pid[1:]).mkdir(parents=True)
        (root / "proc" / pid[1:] / "cgroup").write_text(group)
    return f"{root}/"


def test_gpu_memory_is_the_sum_over_processes_and_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(container_usage.gpu_look, "find_nvidia_smi", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(container_usage, "timed_run", lambda *_: Answer(0, SMI))
    unit = "0::/system.slice/llmfleet-vllm-q.service\n"
    root = processes(tmp_path, p11="0::/system.slice/docker-one.scope\n", p12="9:memory:/docker/one\n0::/\n", p99=unit)
    found = gpu_memory(["one", "on", "two", "llmfleet-vllm-q.service"], root)
    assert found == {"one": 600 << 20, "llmfleet-vllm-q.service": 900 << 20}


@pytest.mark.parametrize("answer", [Answer(None), Answer(9, "", "No devices were found"), Answer(0, "<nonsense")])
def test_a_driver_that_does_not_answer_tells_nothing(monkeypatch, answer):
    monkeypatch.setattr(container_usage.gpu_look, "find_nvidia_smi", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(container_usage, "timed_run", lambda *_: answer)
    assert gpu_memory(["one"]) == {}


def test_without_a_driver_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(container_usage.gpu_look, "find_nvidia_smi", lambda _: None)
    assert gpu_memory(["one"]) == {}
