"""Every module starts through a real ansible-playbook: what pytest imports is not what Ansible packs and sends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "library").glob("*.py"))

HARMLESS: dict[str, dict[str, t.Any]] = {
    "compose_export": {"dest": "/nonexistent/compose", "docker_cli": "/nonexistent/docker"},
    "docker_daemon_apply": {"path": "/nonexistent/daemon.json", "record_path": "/nonexistent/record.json"},
    "docker_daemon_config": {
        "path": "/nonexistent/daemon.json",
        "record_path": "/nonexistent/record.json",
        "contributions": {},
        "engine_version": "20.10.24",
    },
    "docker_engine_info": {"timeout": 1},
    "docker_engine_start": {"cli": "/nonexistent/docker", "dockerd": "/nonexistent/dockerd"},
    "gguf_info": {"path": "/nonexistent/model.gguf"},
    "gpu_info": {},
    "host_info": {},
    "hub_listing": {"model": "hf:none/none", "sources": ["/nonexistent/models"]},
    "image_archive": {"path": "/nonexistent/archive.tar.gz", "state": "absent"},
    "image_receive": {"archive": {}, "peers": []},
    "image_registry": {
        "state": "pushed",
        "image": "none:1",
        "registry": "127.0.0.1:1",
        "docker_cli": "/nonexistent/docker",
    },
    "image_share": {"state": "stopped", "directory": "/nonexistent/transfers"},
    "llama_cpp_image": {"state": "absent", "docker_cli": "/nonexistent/docker", "work_dir": "/nonexistent/work"},
    "llama_cpp_ref": {"sources": [{"git": "http://127.0.0.1:1/none.git"}], "timeout": 1},
    "llm_gateway_certificate": {"directory": "/nonexistent/certificates", "docker_cli": "/nonexistent/docker"},
    "llm_api_test": {},
    "llm_health": {"url": "http://127.0.0.1:1", "served_name": "none", "level": "http"},
    "llm_load": {"url": "http://127.0.0.1:1", "served_name": "none", "seconds": 1},
    "llm_service": {
        "service": {"name": "packaging-test", "state": "absent"},
        "docker_cli": "/nonexistent/docker",
        "directory": "/nonexistent/services",
    },
    "llm_service_info": {"docker_cli": "/nonexistent/docker"},
    "mirror_probe": {
        "kind": "url",
        "candidates": [{"name": "nowhere", "url": "http://127.0.0.1:1"}],
        "cache_path": "/nonexistent/cache.json",
    },
    "model_fetch": {"model": "tiny", "dest": "/nonexistent/models"},
    "model_prune": {"dest": "/nonexistent/models", "keep": []},
    "model_share": {"state": "stopped", "dest": "/nonexistent/models"},
    "model_tool_make": {"source": "/nonexistent/model", "image": "none"},
    "model_tool_run": {
        "model": "/nonexistent/model.gguf",
        "prompt": "hello",
        "image": "none",
        "docker_cli": "/nonexistent/docker",
    },
    "package_lock_info": {},
    "packaged_image": {
        "kind": "gateway",
        "state": "absent",
        "docker_cli": "/nonexistent/docker",
        "work_dir": "/nonexistent/work",
    },
    "side_container": {
        "name": "packaging-test",
        "state": "absent",
        "docker_cli": "/nonexistent/docker",
        "directory": "/nonexistent/side",
    },
    "signing_key": {"dest": "/nonexistent/key.asc", "state": "absent"},
    "llm_service_venv": {
        "service": {"name": "packaging-test", "state": "absent"},
        "docker_cli": "/nonexistent/docker",
        "directory": "/nonexistent/units",
    },
    "vllm_venv": {"state": "absent", "root": "/nonexistent/venvs", "work_dir": "/nonexistent/work"},
    "vllm_image": {"state": "absent", "docker_cli": "/nonexistent/docker", "work_dir": "/nonexistent/work"},
}
"""Arguments of each module with which check mode gets through main(); failing with a clear message is fine."""

# how ansible-core begins its own words about a task; a module's fail_json message stands alone
NOT_FROM_MAIN = ("Task failed:", "missing required arguments", "Unsupported parameters", "value of ")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, t.Any]]:
    """Run one play with a task per module in check mode; return the results by module."""
    folder = tmp_path_factory.mktemp("packaging")
    answers = folder / "answers.json"
    tasks: list[dict[str, t.Any]] = [
        {
            "name": name,
            name: HARMLESS.get(name, {}),
            "check_mode": True,
            "ignore_errors": True,
            "register": f"result_{name}",
        }
        for name in MODULES
    ]
    collected = ", ".join(f"'{name}': result_{name}" for name in MODULES)
    content = f"{{{{ {{ {collected} }} | to_json }}}}"
    tasks.append(
        {"name": "Collect", "ansible.builtin.copy": {"content": content, "dest": str(answers), "mode": "0600"}}
    )
    # the system's interpreter, as on a managed host: that of the virtual environment has packages which hosts lack
    variables = {"ansible_python_interpreter": "/usr/bin/python3"}
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([{"name": "Start every module", **play}]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(folder / "play.yml")]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(folder),
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answers.is_file(), done.stdout + done.stderr
    found: dict[str, dict[str, t.Any]] = json.loads(answers.read_text())
    return found


def test_every_module_has_harmless_arguments() -> None:
    assert sorted(HARMLESS) == MODULES, "add arguments to HARMLESS for a new module, drop those of one that went"


@pytest.mark.parametrize("name", MODULES)
def test_module_starts_and_answers(results: dict[str, dict[str, t.Any]], name: str) -> None:
    assert not results[name].get("msg", "").startswith(NOT_FROM_MAIN), results[name]


def test_lint_knows_the_modules() -> None:
    config = yaml.safe_load((ROOT / ".ansible-lint").read_text())
    assert config["only_builtins_allow_modules"] == MODULES
