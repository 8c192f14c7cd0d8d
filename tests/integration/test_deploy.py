"""site.yml from end to end on this machine: plan, deploy, repeat, call, refuse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import openai
import pytest
import yaml
from ansible.module_utils.llmfleet import tiny_gguf
from helpers import docker, free_port, running

ROOT = Path(__file__).resolve().parents[2]
KEY = "deploy-key-0123456789"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}


def site(inventory: Path, *arguments: str, code: int = 0, playbook: str = "site.yml") -> str:
    """Run site.yml (or another playbook) and return what it printed."""
    program = str(Path(sys.executable).parent / "ansible-playbook")
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        [program, playbook, "-i", str(inventory), *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def changed(output: str) -> int:
    """Return the sum of the recap's changed counts."""
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


def write_inventory(path: Path, hosts: dict[str, t.Any], **variables: t.Any) -> Path:
    """Write an inventory of llm_hosts."""
    path.write_text(yaml.safe_dump({"llm_hosts": {"hosts": hosts, "vars": variables}}))
    return path


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, image: str) -> t.Iterator[dict[str, t.Any]]:
    """One service with an API key, deployed by site.yml; what it printed at each step."""
    assert image
    folder = tmp_path_factory.mktemp("deploy")
    folder.chmod(0o755)
    service = {"name": "test-deploy", "model": "tiny", "port": free_port(), "api_key": KEY}
    folders = {"model_store_dir": str(folder / "models"), "llm_service_directory": str(folder / "services")}
    inventory = write_inventory(
        folder / "inventory",
        {"localhost": {**LOCAL, "llm_services": [service]}},
        llama_cpp_image_source="build",
        **folders,
    )
    steps = {"check": site(inventory, "--check", "--diff"), "untouched": not running("test-deploy")}
    steps |= {"first": site(inventory), "second": site(inventory), "check again": site(inventory, "--check", "--diff")}
    yield {**steps, "url": f"http://127.0.0.1:{service['port']}/v1"}
    subprocess.run(["docker", "rm", "-f", "test-deploy"], capture_output=True, check=False)


def test_check_mode_foresees_and_changes_nothing(deployed):
    assert deployed["untouched"]
    assert changed(deployed["check"]) > 0
    assert changed(deployed["check again"]) == 0


def test_the_second_run_changes_nothing(deployed):
    assert changed(deployed["first"]) > 0
    assert changed(deployed["second"]) == 0


def test_the_plan_comes_first_and_says_why(deployed):
    plan, _, rest = deployed["first"].partition("PLAY [Prepare the host]")
    assert "test-deploy" in plan
    assert "generate" in plan
    assert "CPU" in plan
    assert "changed:" not in plan
    assert "replied" in rest


def test_the_report_shows_reply_levels_speed_and_calls(deployed):
    for step in ("first", "second"):
        assert tiny_gguf.ANSWER in deployed[step]
        assert re.search(r"verified +process [\d.]+ s, http [\d.]+ s, model [\d.]+ s, token [\d.]+ s", deployed[step])
        assert re.search(r"first token after [\d.]+ s, [\d.]+ tokens/s", deployed[step])


def test_the_key_is_printed_nowhere(deployed):
    assert not [step for step, output in deployed.items() if isinstance(output, str) and KEY in output]


def test_the_printed_curl_command_works(deployed):
    (command,) = set(re.findall(r"with curl +(curl .*)", deployed["second"]))
    done = subprocess.run(
        ["sh", "-c", command + " -sS"], env={**os.environ, "API_KEY": KEY}, capture_output=True, text=True, check=True
    )
    assert tiny_gguf.ANSWER in done.stdout


def test_the_openai_package_gets_answers(deployed):
    with openai.OpenAI(base_url=deployed["url"], api_key=KEY) as client:
        assert [model.id for model in client.models.list()] == ["test-deploy"]
        messages: t.Any = [{"role": "user", "content": "你好,请介绍一下你自己。"}]
        whole = client.chat.completions.create(model="test-deploy", messages=messages)
        assert whole.choices[0].message.content.strip() == tiny_gguf.ANSWER
        with client.chat.completions.create(model="test-deploy", messages=messages, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert len(pieces) > 1
        assert "".join(pieces).strip() == tiny_gguf.ANSWER
    with openai.OpenAI(base_url=deployed["url"], api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_impossible_input_is_refused_before_anything_changes(tmp_path, tiny):
    """Each host of one inventory has its own fault; all of them are named in one run that changes nothing."""
    tmp_path.chmod(0o755)
    files = {
        "page.gguf": b"<!doctype html><title>Sign in</title>" * 20,
        "pointer.gguf": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "short.gguf": tiny.read_bytes()[:-5000],
        "empty.gguf": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    good = {"name": "test-bad", "model": str(tiny), "port": 18080}
    # host name -> (service, words of the sentence that refuses it)
    faults = {
        "engine": ({**good, "engine": "lama_server"}, "unknown engine `lama_server` (did you mean `llama_server`?)"),
        "port": ({**good, "port": 99999}, "`port` must be between 1 and 65535"),
        "missing": ({**good, "model": str(tmp_path / "missing.gguf")}, "missing.gguf"),
        "folder": ({**good, "model": str(tmp_path)}, "directory"),
        "page": ({**good, "model": str(tmp_path / "page.gguf")}, "web page"),
        "pointer": ({**good, "model": str(tmp_path / "pointer.gguf")}, "LFS"),
        "short": ({**good, "model": str(tmp_path / "short.gguf")}, "short.gguf"),
        "empty": ({**good, "model": str(tmp_path / "empty.gguf")}, "empty"),
        "hub": ({**good, "model": "org/repo:Q4:Q8"}, "is no type of weights"),
        "catalogue": ({**good, "model": "qwen3-8"}, "qwen3-8b"),
        "digest": ({**good, "model": "http://127.0.0.1:9/m.gguf"}, "sha256"),
        "context": ({**good, "context_length": -1}, "`context_length` may not be negative"),
        "long": ({**good, "context_length": 10**6}, "was trained for"),
        "name": ({**good, "name": "Bad Name"}, "`name` names the container too"),
        "public": ({**good, "bind": "0.0.0.0"}, "set `api_key` too"),
        "unknown": ({**good, "contxt_length": 1}, "did you mean `context_length`?"),
        "type": ({**good, "parallel": "two"}, "`parallel` must be an integer"),
    }
    hosts = {
        name: {**LOCAL, "llm_services": [service]}
        for name, (service, _) in faults.items()
    }  # fmt: skip
    hosts["twice"] = {**LOCAL, "llm_services": [good, {**good, "port": 18081}]}
    hosts["same-port"] = {**LOCAL, "llm_services": [good, {**good, "name": "test-other"}]}
    hosts["away"] = {"ansible_host": "127.0.0.1", "ansible_port": 1, "llm_services": [good]}
    dead = {"docker_engine_source": "mirror", "docker_engine_mirrors": [{"name": "dead", "url": "http://127.0.0.1:1"}]}
    hosts["mirror"] = {**LOCAL, "llm_services": [good], **dead}
    # becoming another user through a sudo that is not there: what a host without sudo looks like
    hosts["no-sudo"] = {
        **LOCAL, "llm_services": [good], "ansible_become_exe": "/nonexistent/sudo", "ansible_become_user": "nobody",
    }  # fmt: skip
    output = site(write_inventory(tmp_path / "inventory", hosts, llama_cpp_image_source="build"), code=2)
    assert not docker("ps", "--all", "--quiet", "--filter", "name=test-bad", "--filter", "name=test-other")
    assert "Traceback" not in output
    expected = {name: words for name, (_, words) in faults.items()}
    expected |= {
        "twice": "`name` is used twice",
        "same-port": "is taken by service test-bad",
        "away": "not reachable",
        "mirror": "no mirror of Docker CE can be used (dead: ",
        "no-sudo": "cannot become root",
    }
    recap = output.partition("PLAY RECAP")[2]
    for host, words in expected.items():
        said = "\n".join(re.findall(rf"(?ms)^(?:fatal|failed): \[{host}\].*?(?=^\S)", output))
        assert words in re.sub(r"\s+", " ", said), f"{host}: {said or output}"
        assert re.search(rf"^{host} .*changed=0", recap, re.MULTILINE)
