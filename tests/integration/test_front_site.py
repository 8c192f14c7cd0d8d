"""site.yml with everything in front: a llama-server, a vLLM, the gateway and Open WebUI, deployed twice here.

The images of vLLM, of the gateway and of Open WebUI are made if they are not there yet, which takes some ten minutes.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
import typing as t
import urllib.error
import urllib.request

import openai
import pytest
import tiny_hf
import yaml
from ansible.module_utils.llmfleet import tiny_gguf
from helpers import docker, free_port
from test_deploy import LOCAL, ROOT, changed, site

ENGINE_KEY = "front-engine-key-0123456789"
USER_KEY = "front-user-key-0123456789"
UI_KEY = "front-webui-key-0123456789"
ADMIN = {"email": "admin@example.org", "password": "front-admin-password"}
CONTAINERS = ("test-front-llama", "test-front-vllm", "test-front-gateway", "test-front-webui")
MODELS = CONTAINERS[:2]
ANSWER = tiny_gguf.ANSWER


def state(name: str) -> tuple[str, str]:
    """Return what stays the same of a container that nobody touches."""
    found = json.loads(docker("container", "inspect", name))[0]
    return found["Id"], found["State"]["StartedAt"]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, image: str) -> t.Iterator[dict[str, t.Any]]:
    """All of it deployed twice, and looked at by playbooks/status.yml; what was printed at each step."""
    assert image
    folder = tmp_path_factory.mktemp("front")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    tiny_hf.write(folder / "tiny-hf", head_dim=32)
    ports = {name: free_port() for name in ("llama", "vllm", "tls", "local", "webui")}
    services = [
        {"name": MODELS[0], "model": "tiny", "port": ports["llama"]},
        {
            "name": MODELS[1],
            "engine": "vllm",
            "model": str(folder / "tiny-hf"),
            "port": ports["vllm"],
            "api_key": ENGINE_KEY,
            "context_length": 1024,
            "parallel": 4,
        },
    ]
    inventory = {
        "all": {
            "vars": {
                "llama_cpp_image_source": "build",
                "model_store_dir": str(folder / "models"),
                "llm_service_directory": str(folder / "services"),
                "llm_service_cache_directory": str(folder / "cache"),
                "llm_gateway_container": CONTAINERS[2],
                "llm_gateway_directory": str(folder / "side"),
                "llm_gateway_bind": "127.0.0.1",
                "llm_gateway_port": ports["tls"],
                "llm_gateway_local_port": ports["local"],
                "llm_gateway_keys": [{"name": "somebody", "key": USER_KEY}, {"name": "open-webui", "key": UI_KEY}],
                "open_webui_container": CONTAINERS[3],
                "open_webui_directory": str(folder / "side"),
                "open_webui_port": ports["webui"],
                "open_webui_admin_email": ADMIN["email"],
                "open_webui_admin_password": ADMIN["password"],
            }
        },
        "llm_hosts": {"hosts": {"localhost": {**LOCAL, "llm_services": services}}},
        "llm_gateway": {"hosts": {"localhost": {}}},
        "open_webui": {"hosts": {"localhost": {}}},
    }
    path = folder / "inventory"
    path.write_text(yaml.safe_dump(inventory))
    steps: dict[str, t.Any] = {"folder": folder, "ports": ports, "inventory": path}
    wrong = {"llm_gateway_keys": [{"name": "somebody", "key": USER_KEY}]}
    steps["wrong"] = site(path, "-e", json.dumps(wrong), code=2)
    steps["nothing yet"] = not (folder / "models").exists()
    try:
        steps["first"] = site(path)
        steps["containers"] = {name: state(name) for name in CONTAINERS}
        steps["second"] = site(path)
        yield steps
    finally:
        subprocess.run(["docker", "rm", "-f", *CONTAINERS], capture_output=True, check=False)


def test_the_second_run_changes_nothing_and_leaves_every_container_alone(front):
    assert changed(front["first"]) > 0
    assert changed(front["second"]) == 0
    assert {name: state(name) for name in CONTAINERS} == front["containers"]


def test_what_is_wrong_with_the_front_stops_the_run_before_anything_changes(front):
    assert "the web UI has no key for the gateway" in " ".join(front["wrong"].split())
    assert changed(front["wrong"]) == 0
    assert front["nothing yet"]


def test_no_key_and_no_password_is_printed(front):
    for step in ("first", "second"):
        for secret in (ENGINE_KEY, USER_KEY, UI_KEY, ADMIN["password"]):
            assert secret not in front[step]


def certificate(front: dict[str, t.Any]) -> ssl.SSLContext:
    """Trust what the run says that clients should trust."""
    (file,) = set(re.findall(r"certificate +(\S+) on the host", front["second"]))
    return ssl.create_default_context(cafile=file)


def test_the_openai_package_reaches_both_models_at_one_address_over_tls(front):
    address = f"https://localhost:{front['ports']['tls']}/v1"
    with openai.OpenAI(
        base_url=address, api_key=USER_KEY, http_client=openai.DefaultHttpxClient(verify=certificate(front))
    ) as client:
        assert {model.id for model in client.models.list()} == set(MODELS)
        for name in MODELS:
            messages: t.Any = [{"role": "user", "content": "你好,请介绍一下你自己。"}]
            whole = client.chat.completions.create(model=name, messages=messages, temperature=0, max_tokens=16)
            assert whole.choices[0].message.content
            stream = client.chat.completions.create(
                model=name, messages=messages, temperature=0, max_tokens=16, stream=True
            )
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
            assert "".join(pieces) == whole.choices[0].message.content
    with (
        openai.OpenAI(
            base_url=address, api_key="wrong", http_client=openai.DefaultHttpxClient(verify=certificate(front))
        ) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def ask(url: str, token: str = "", data: t.Any = None) -> t.Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, json.dumps(data).encode() if data is not None else None, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_open_webui_knows_both_models_and_answers_through_the_gateway(front):
    address = f"http://127.0.0.1:{front['ports']['webui']}"
    token = ask(f"{address}/api/v1/auths/signin", data=ADMIN)["token"]
    assert {model["id"] for model in ask(f"{address}/api/models", token)["data"]} >= set(MODELS)
    for name in MODELS:
        question = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
        reply = ask(f"{address}/api/chat/completions", token, {**question, "stream": False, "max_tokens": 16})
        assert reply["choices"][0]["message"]["content"]


def test_the_report_names_every_address(front):
    ports = front["ports"]
    for port in (ports["llama"], ports["vllm"], ports["tls"], ports["webui"]):
        assert f":{port}" in front["first"].rpartition("PLAY [Report]")[2]


def status(front: dict[str, t.Any], code: int) -> tuple[str, dict[str, t.Any]]:
    """Run playbooks/status.yml; return what it printed and wrote."""
    target = front["folder"] / "status.json"
    playbook = str(ROOT / "playbooks" / "status.yml")
    # other tests have services on this machine
    given = json.dumps({"report_json": str(target), "report_only": list(CONTAINERS)})
    output = site(front["inventory"], "-e", given, code=code, playbook=playbook)
    return output, json.loads(target.read_text())


def test_status_shows_what_answers_and_what_does_not(front):
    output, data = status(front, 0)
    text = json.dumps(data)
    for name in MODELS:
        assert re.search(rf"{name}\b", output)
        assert name in text
    assert changed(output) == 0

    docker("kill", MODELS[0])
    try:
        output, data = status(front, 2)
        assert "Traceback" not in output
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(
                f"http://127.0.0.1:{front['ports']['local']}/v1/chat/completions",
                USER_KEY,
                {"model": MODELS[0], "messages": [{"role": "user", "content": "Hello"}]},
            )
        assert caught.value.code in (502, 503, 504)
        assert json.load(caught.value)["error"]["message"]
        # the other one is not concerned
        assert ask(
            f"http://127.0.0.1:{front['ports']['local']}/v1/chat/completions",
            USER_KEY,
            {"model": MODELS[1], "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4},
        )["choices"]
    finally:
        docker("start", MODELS[0])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            ask(f"http://127.0.0.1:{front['ports']['llama']}/v1/models")
            break
        except OSError:
            time.sleep(0.2)
