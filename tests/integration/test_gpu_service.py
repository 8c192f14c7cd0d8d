"""Services that are planned on a GPU, on an engine that has none: what must be refused is refused by the real one.

The docker client is wrapped where a container is to start all the same: the wrapper takes the request for GPUs away, as
an engine without the hook would. What only a GPU can say is put into its mouth, marked as such; tests/gpu has it real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import docker, free_port, run_module, running

ROOT = Path(__file__).resolve().parents[2]
KEY = "first-key-0123456789"
PROMPT = "canary zebra"

CLIENT = """\
#!{python}
import os, subprocess, sys

LISTED, LOGGED, CDI = {listed!r}, {logged!r}, {cdi!r}
args = sys.argv[1:]
with open({asked!r}, "a") as file:
    print(*args, file=file)
if args[0] == "create":
    for pair in (["--gpus", "all"], ["--device", "nvidia.com/gpu=all"]):
        for at in range(len(args) - 1):
            if args[at : at + 2] == pair:
                del args[at : at + 2]
                break
elif args[0] == "exec" and LISTED:
    sys.exit(print(LISTED))
elif args[0] == "info" and CDI:
    sys.exit(print(CDI))
elif args[0] == "logs" and LOGGED:
    said = subprocess.run(["docker", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    print(*(line for line in said.splitlines() if "no usable GPU" not in line), LOGGED, sep="\\n")
    sys.exit()
os.execvp("docker", ["docker", *args])
"""
LISTED = "Available devices:\n  CUDA0: NVIDIA H200 (143771 MiB, 143064 MiB free)"
OFFLOADED = """\
using device CUDA0 (NVIDIA H200) (0000:19:00.0) - 143064 MiB free
load_tensors: offloaded 3/3 layers to GPU
load_tensors:        CUDA0 model buffer size =     0.39 MiB"""


@pytest.fixture
def client(tmp_path):
    """Return a function that makes a docker client which asks for no GPUs and may answer as a GPU would."""

    def make(listed="", logged="", cdi=""):
        path = tmp_path / "docker-without-gpus"
        asked = str(make.asked)
        path.write_text(CLIENT.format(python=sys.executable, listed=listed, logged=logged, cdi=cdi, asked=asked))
        path.chmod(0o755)
        return str(path)

    make.asked = tmp_path / "asked"
    return make


@pytest.fixture
def service(request, tmp_path, image, tiny):
    """Return a function that runs llm_service for one service of this test; everything is removed afterwards."""
    name = f"test-{abs(hash(request.node.nodeid)) % 10**8}"
    port = free_port()

    def run(*, docker_cli="docker", gpus="nvidia", key="", check=False, image=image, **fields):
        arguments = {
            "service": {"name": name, "model": str(tiny), "port": port, "context_length": 512, **fields},
            "api_key": key,
            "image": image,
            "model_path": str(tiny),
            "gpus": gpus,
            "directory": str(tmp_path / "services"),
            "docker_cli": docker_cli,
        }
        return run_module("llm_service", arguments, check=check)

    run.name, run.directory = name, tmp_path / "services" / name
    yield run
    for suffix in ("", ".previous", ".next"):
        subprocess.run(["docker", "rm", "-f", name + suffix], capture_output=True, check=False)


def inspect(name):
    return json.loads(docker("container", "inspect", name))[0]


@pytest.mark.parametrize(
    ("gpus", "words"), [("nvidia", "cannot give GPUs to containers"), ("amd", "/dev/kfd does not exist")]
)
def test_an_engine_that_has_no_gpus_to_give_says_so_and_leaves_nothing(service, gpus, words):
    failed = service(gpus=gpus)
    assert failed["failed"]
    assert words in failed["diagnosis"]["cause"]
    assert not docker("ps", "-aq", "--filter", f"name={service.name}")


def test_a_cpu_image_is_refused_on_the_gpu_and_the_old_service_answers_again(service, client):
    """The server starts, is healthy and answers; only the device tells that it is the wrong one."""
    service(gpus="")
    before = inspect(service.name)["Id"]
    failed = service(docker_cli=client())
    assert failed["failed"]
    assert "computes on the CPU" in failed["diagnosis"]["cause"] or "built for the CPU" in failed["diagnosis"]["cause"]
    assert failed["diagnosis"]["evidence"].startswith("warning: no usable GPU found")
    assert "llama_cpp_image_variant" in failed["diagnosis"]["fix"]
    assert failed["rolled_back"]
    assert failed["previous_verification"]["levels"]["token"]
    assert "device" not in failed["previous_verification"]["levels"]
    assert "--gpus all" in client.asked.read_text()
    assert inspect(service.name)["Id"] == before
    assert not service(gpus="")["changed"]


def test_the_level_token_does_without_the_proof(service, client):
    launched = service(docker_cli=client(), verify={"level": "token"})
    assert launched["changed"], launched
    assert list(launched["verification"]["levels"]) == ["process", "http", "model", "token"]


def test_the_log_that_would_prove_the_gpu_holds_neither_key_nor_prompt(service, client):
    launched = service(docker_cli=client(), key=KEY, verify={"level": "token", "prompt": PROMPT})
    assert launched["verification"]["levels"]["token"]
    log = docker("logs", service.name)
    # what is printed at this verbosity only
    assert "load_tensors: loading model tensors" in log
    assert KEY[-4:] not in log
    assert "2 keys loaded" in log
    assert not [word for word in PROMPT.split() if word in log]
    assert not service(docker_cli=client(), key=KEY, verify={"level": "token", "prompt": PROMPT})["changed"]


def test_a_gpu_that_proves_itself_is_a_level_of_its_own(service, client):
    """The list and the lines about layers are put into the server's mouth; all else is real."""
    gpu = client(LISTED, OFFLOADED)
    launched = service(docker_cli=gpu)
    assert launched["changed"], launched
    assert list(launched["verification"]["levels"]) == ["process", "http", "model", "token", "device"]
    assert launched["verification"]["device"] == "3/3 layers on CUDA0 (NVIDIA H200)"
    spec = json.loads(inspect(service.name)["Config"]["Labels"]["io.llmfleet.spec"])
    assert spec["gpus"] == "nvidia"
    same = service(docker_cli=gpu)
    assert (same["changed"], same["action"]) == (False, "keep"), same
    assert same["verification"]["device"] == launched["verification"]["device"]

    partly = service(docker_cli=client(LISTED, OFFLOADED.replace("3/3", "2/3")), context_length=256)
    assert partly["diagnosis"]["cause"] == "only 2 of the model's 3 layers are on the GPU, 3 were planned"
    assert partly["rolled_back"]


def test_a_service_that_lost_its_gpu_is_restarted_once_and_then_named(service, client):
    assert service(docker_cli=client(LISTED, OFFLOADED))["changed"]
    lost = service(docker_cli=client())
    assert (lost["failed"], lost["action"], lost["changed"]) == (True, "restart", True)
    assert "on the CPU" in lost["msg"] or "built for the CPU" in lost["msg"]


@pytest.mark.parametrize(("folders", "way"), [("", "--gpus all"), ('["/etc/cdi"]', "--device nvidia.com/gpu=all")])
def test_device_lists_are_used_where_the_engine_has_them_on(service, client, folders, way):
    level = {"level": "http"}
    cli = client(cdi=folders)
    assert service(docker_cli=cli, gpus="nvidia_cdi", verify=level)["changed"]
    created = [line for line in client.asked.read_text().splitlines() if line.startswith("create")]
    assert [way in line for line in created] == [True]
    assert not service(docker_cli=cli, gpus="nvidia_cdi", verify=level)["changed"]


def test_on_the_cpu_of_an_image_for_gpus_nothing_is_proven_about_gpus(service, client):
    launched = service(docker_cli=client(), device="cpu")
    assert list(launched["verification"]["levels"]) == ["process", "http", "model", "token"], launched
    assert launched["verification"]["device"] is None
    assert "no usable GPU" not in docker("logs", service.name)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gpus": "", "device": "gpu"}, "`device` is gpu, but `gpus` does not say how"),
        ({"gpus": "", "verify": {"level": "device"}}, "`verify.level: device` is about GPUs"),
        ({"args": ["-lv", "1"]}, "`args` holds -lv 1, which hides the log lines"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_changes(service, fields, words):
    service(gpus="")
    before = inspect(service.name)["Id"]
    failed = service(**fields)
    assert words in failed["msg"], failed
    assert inspect(service.name)["Id"] == before
    assert running(service.name)


def test_a_running_service_on_the_cpu_is_kept_by_a_plan_without_gpus(service):
    service(gpus="")
    assert service(gpus="")["action"] == "keep"
    would = service(check=True)
    assert (would["changed"], would["why"]) == (
        True,
        "argv: (nothing) -> --n-gpu-layers 999 --verbosity 4; gpus: (none) -> nvidia",
    )


def test_the_role_gives_the_container_what_the_plan_says(service, image, tiny, tmp_path):
    """The stage alone, with a plan for a GPU made beforehand: the real engine has none to give, and says so."""
    row = {"name": service.name, "image_reference": image, "model_path": str(tiny), "gpus": "nvidia"}
    variables = {
        "preflight_plan": {"services": [row]},
        "llm_services": [{"name": service.name, "model": str(tiny), "port": free_port()}],
        "llm_service_directory": str(tmp_path / "services"),
    }
    done = subprocess.run(
        [
            *(
                str(Path(sys.executable).parent / "ansible-playbook"),
                "playbooks/services.yml",
                "-i",
                "inventory/localhost",
            ),
            *("-e", json.dumps(variables)),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    assert "the engine cannot give GPUs to containers" in done.stdout
    assert not docker("ps", "-aq", "--filter", f"name={service.name}")
