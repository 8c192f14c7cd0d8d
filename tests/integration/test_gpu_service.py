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
from ansible.module_utils.llmfleet.gpu_access import docker_words
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
    for flag, begins in (("--gpus", ""), ("--device", "nvidia.com/gpu="), ("--runtime", "nvidia")):
        for at in reversed(range(len(args) - 1)):
            if args[at] == flag and args[at + 1].startswith(begins):
                del args[at : at + 2]
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

    def run(
        *, docker_cli="docker", gpus="nvidia", gpu_access="auto", chosen=(), key="", check=False, image=image, **fields
    ):
        choice = {"gpus": list(chosen)} if chosen else {}
        arguments = {
            "service": {"name": name, "model": str(tiny), "port": port, "context_length": 512, **choice, **fields},
            "api_key": key,
            "image": image,
            "model_path": str(tiny),
            "gpus": gpus,
            "gpu_ids": list(chosen),
            "gpu_access": gpu_access,
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


def engine_with(*devices: str) -> str:
    """Return what an engine of 28.5 says that has the toolkit's runtime and found ``devices`` in lists."""
    found = [{"Source": "cdi", "ID": f"nvidia.com/gpu={name}"} for name in devices]
    runtimes = {"runc": {}, "nvidia": {}}
    return json.dumps(
        {
            "ServerVersion": "28.5.2",
            "CDISpecDirs": ["/etc/cdi"],
            "DiscoveredDevices": found,
            "Runtimes": runtimes,
        }
    )


LEVEL = {"level": "http"}


def created(client):
    """Return the containers that were asked for, as arguments of docker."""
    return [line for line in client.asked.read_text().splitlines() if line.startswith("create")]


@pytest.mark.parametrize(
    ("engine", "more", "way"),
    [
        ("", {}, "--gpus all "),
        (engine_with("all"), {}, "--device nvidia.com/gpu=all "),
        (engine_with("all"), {"gpu_access": "gpus"}, "--gpus all "),
        (engine_with(), {"gpu_access": "runtime"}, "--runtime nvidia --env NVIDIA_VISIBLE_DEVICES=all "),
        (engine_with("all", "GPU-1"), {"chosen": ["GPU-1"]}, "--device nvidia.com/gpu=GPU-1 "),
        ("", {"chosen": ["GPU-1", "GPU-2"]}, '--gpus "device=GPU-1,GPU-2" '),
    ],
)
def test_a_container_gets_its_gpus_as_the_engine_can_give_them(service, client, engine, more, way):
    cli = client(cdi=engine)
    assert service(docker_cli=cli, gpus="nvidia_cdi", verify=LEVEL, **more)["changed"]
    assert [way in line for line in created(client)] == [True], created(client)
    assert not service(docker_cli=cli, gpus="nvidia_cdi", verify=LEVEL, **more)["changed"]


def test_an_engine_that_learns_device_lists_restarts_nothing(service, client):
    assert service(docker_cli=client(), gpus="nvidia_cdi", verify=LEVEL)["changed"]
    before = inspect(service.name)["Id"]
    upgraded = client(cdi=engine_with("all"))
    assert service(docker_cli=upgraded, gpus="nvidia_cdi", verify=LEVEL)["action"] == "keep"
    assert inspect(service.name)["Id"] == before
    # with the next change of something else the better way comes along, and it stays when another is asked for again
    changed = service(docker_cli=upgraded, gpus="nvidia_cdi", verify=LEVEL, context_length=256)
    assert "gpus: nvidia -> nvidia_cdi" in changed["why"]
    asked = service(docker_cli=upgraded, gpus="nvidia_cdi", gpu_access="gpus", verify=LEVEL, context_length=256)
    assert asked["why"] == "gpus: nvidia_cdi -> nvidia"


@pytest.mark.parametrize(
    ("engine", "access", "words"),
    [
        ("", "cdi", "has device lists (CDI) off"),
        (engine_with("0"), "cdi", "knows no device nvidia.com/gpu=all (it knows: nvidia.com/gpu=0)"),
        ("", "runtime", "knows no runtime `nvidia`; run playbooks/host.yml"),
    ],
)
def test_a_way_that_the_engine_does_not_have_is_refused_before_anything_changes(service, client, engine, access, words):
    refused = service(docker_cli=client(cdi=engine), gpu_access=access, check=True)
    assert words in refused["msg"], refused
    assert service.name in refused["msg"]


def test_the_engine_understands_which_gpus_are_asked_for(service, image):
    """The words are given to the real engine, which starts nothing and so needs no GPU."""
    docker("create", "--name", service.name, *docker_words("nvidia", ["GPU-1", "GPU-2"]), image)
    (request,) = inspect(service.name)["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == ["GPU-1", "GPU-2"]
    assert request["Capabilities"] == [["gpu"]]


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
        ({"args": ["--log-disable"]}, "`args` holds --log-disable, which hides the log lines"),
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
