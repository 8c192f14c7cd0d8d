"""The role open_webui: what it refuses, and the real thing in front of a real llama-server, with a real browser.

The image takes some minutes to make and 1 GB, and each start ten seconds of computing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import browser
import pytest
import yaml
from helpers import docker, free_port, run_module, running
from selenium.common.exceptions import ElementClickInterceptedException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as shown
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / ".cache" / "artifacts"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
UI, CHAT, BROWSER = "test-open-webui-page", "test-open-webui-chat", "test-open-webui-browser"
GATEWAY, VECTORS = "test-open-webui-gateway", "test-open-webui-vectors"
KEY, PASSWORD, EMAIL = "webui-key-0123456789", "correct horse battery", "admin@example.org"
ANSWER = "Hello from llmfleet"


class Site:
    """One host with a service and a web UI; ``run`` runs the playbook and returns what it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.chat_port = folder, free_port(), free_port()
        self.home = folder / "side" / UI
        self.services: list[dict[str, t.Any]] = [
            {"name": CHAT, "model": "tiny", "port": self.chat_port, "api_key": KEY, "served_name": "chat"}
        ]
        self.variables: dict[str, t.Any] = {
            "open_webui_container": UI,
            "open_webui_port": self.port,
            "open_webui_directory": str(folder / "side"),
            "open_webui_admin_email": EMAIL,
            "open_webui_admin_password": PASSWORD,
            "open_webui_image_source": "build",
            # a start takes long while other tests compute
            "open_webui_start_timeout": 500,
        }

    def run(
        self, *arguments: str, code: int = 0, play: str = "open_webui", gateway: t.Any = None, **variables: t.Any
    ) -> str:
        inventory = self.folder / "inventory"
        hosts = {"localhost": {**LOCAL, "llm_services": self.services}}
        groups = {
            "llm_hosts": {"hosts": hosts},
            "open_webui": {"hosts": {"localhost": None}, "vars": {**self.variables, **variables}},
            **({"llm_gateway": {"hosts": {"localhost": None}, "vars": gateway}} if gateway else {}),
        }
        inventory.write_text(yaml.safe_dump(groups))
        playbook = str(Path(sys.executable).parent / "ansible-playbook")
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [playbook, f"playbooks/{play}.yml", "-i", str(inventory), *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        assert PASSWORD not in done.stdout
        assert KEY not in done.stdout
        return done.stdout

    def call(self, path: str, body: t.Any = None, token: str = "") -> tuple[int, t.Any]:
        """Return (status, JSON) of an answer."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def login(self, email: str = EMAIL, password: str = PASSWORD) -> str:
        status, found = self.call("/api/v1/auths/signin", {"email": email, "password": password})
        assert status == 200, found
        return str(found["token"])

    def upload(self, token: str, text: str) -> str:
        """Give a file to it, wait until it was read, and return the name under which it is searched."""
        edge = "llmfleet-test-boundary"
        head = 'Content-Disposition: form-data; name="file"; filename="note.txt"\r\nContent-Type: text/plain'
        body = f"--{edge}\r\n{head}\r\n\r\n{text}\r\n--{edge}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}", "Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1/files/", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            name = json.loads(answer.read())["id"]
        until = time.monotonic() + 60
        found: t.Any = {}
        while found.get("status") not in ("completed", "failed"):
            assert time.monotonic() < until, found
            time.sleep(0.2)
            _, found = self.call(f"/api/v1/files/{name}/process/status", token=token)
        assert found["status"] == "completed", docker("logs", "--tail", "30", UI)
        return f"file-{name}"

    def change(self, token: str, **settings: t.Any) -> None:
        """Change settings as an administrator does in the browser."""
        _, now = self.call("/api/v1/auths/admin/config", token=token)
        status, found = self.call("/api/v1/auths/admin/config", {**now, **settings}, token)
        assert status == 200, found


def changed(output: str) -> int:
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


def container() -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(docker("inspect", UI))[0])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Site]:
    folder = tmp_path_factory.mktemp("webui")
    folder.chmod(0o755)
    yield Site(folder)
    for name in (UI, f"{UI}.next", f"{UI}.previous", GATEWAY):
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def test_what_cannot_work_is_refused_before_anything_is_touched(site: Site) -> None:
    said = site.run(code=2, open_webui_bind="0.0.0.0", open_webui_admin_email="", open_webui_admin_password="")
    assert "whoever comes first becomes its administrator" in said
    assert not site.home.exists()


def test_a_check_says_what_would_be_done_and_does_nothing(site: Site) -> None:
    assert changed(site.run("--check", "--diff")) >= 1
    assert not running(UI)
    assert not site.home.exists()


def launch(site: Site, service: dict[str, t.Any], image: str, model: Path) -> None:
    """Launch a service of ``site`` on a real llama-server."""
    arguments = {
        "service": {**{key: value for key, value in service.items() if key != "api_key"}, "model": str(model)},
        "api_key": service.get("api_key", ""),
        "image": image,
        "model_path": str(model),
        "directory": str(site.folder / "services"),
        "cache_directory": str(site.folder / "cache"),
    }
    result = run_module("llm_service", arguments)
    assert not result.get("failed"), result


@pytest.fixture(scope="module")
def chat(site: Site, image: str, tiny: Path) -> t.Iterator[str]:
    """The name of the model that a real llama-server serves."""
    launch(site, site.services[0], image, tiny)
    yield "chat"
    subprocess.run(["docker", "rm", "--force", CHAT], capture_output=True, check=False)


@pytest.fixture
def vectors(site: Site, image: str, tiny: Path) -> t.Iterator[str]:
    """The name of a service that makes vectors, which the inventory has as well."""
    service = {"name": VECTORS, "model": "tiny", "port": free_port(), "task": "embed", "pooling": "mean"}
    launch(site, service, image, tiny)
    site.services.append(service)
    yield VECTORS
    site.services.remove(service)
    subprocess.run(["docker", "rm", "--force", VECTORS], capture_output=True, check=False)


@pytest.fixture(scope="module")
def deployed(site: Site, chat: str) -> Site:
    assert chat
    site.run()
    return site


@pytest.mark.full
def test_it_serves_the_models_and_keeps_its_secrets(deployed: Site) -> None:
    first = container()
    assert changed(deployed.run()) == 0
    assert container()["State"]["StartedAt"] == first["State"]["StartedAt"]
    assert first["Config"]["User"] == "10001:10001"
    assert first["HostConfig"]["ReadonlyRootfs"]
    token = deployed.login()
    _, models = deployed.call("/api/models", token=token)
    assert [row["id"] for row in models["data"]] == ["chat"]
    question = {"model": "chat", "messages": [{"role": "user", "content": "Say hello"}], "stream": False}
    status, reply = deployed.call("/api/chat/completions", question, token)
    assert status == 200, reply
    assert reply["choices"][0]["message"]["content"].startswith(ANSWER)

    secrets = [KEY, PASSWORD, (deployed.home / "data" / "secret_key").read_text()]
    seen = json.dumps(first) + docker("logs", UI) + docker("top", UI, "-eo", "pid,args")
    assert not [secret for secret in secrets if secret in seen]
    assert (deployed.home / "files" / "settings.json").stat().st_mode & 0o077 == 0
    status, _ = deployed.call("/api/v1/auths/signup", {"name": "x", "email": "x@example.org", "password": "x-password"})
    assert status == 403


@pytest.mark.full
def test_settings_of_the_inventory_hold_and_those_of_the_browser_stay(deployed: Site) -> None:
    token = deployed.login()
    user = {"name": "Li", "email": "li@example.org", "password": "first-password", "role": "user"}
    assert deployed.call("/api/v1/auths/add", user, token)[0] == 200
    own = deployed.login(user["email"], user["password"])
    assert deployed.call("/api/v1/users/user/settings/update", {"ui": {"system": "Be brief."}}, own)[0] == 200
    assert deployed.call("/api/v1/chats/new", {"chat": {"title": "about trains", "messages": []}}, own)[0] == 200
    # a setting of the inventory, and one that it leaves open
    deployed.change(token, DEFAULT_USER_ROLE="admin", ENABLE_MESSAGE_RATING=False)
    _, there = deployed.call("/openai/config", token=token)
    added = {
        **there,
        "OPENAI_API_BASE_URLS": [*there["OPENAI_API_BASE_URLS"], "http://127.0.0.1:9/v1"],
        "OPENAI_API_KEYS": [*there["OPENAI_API_KEYS"], "their-key"],
        "OPENAI_API_CONFIGS": {"1": {"enable": False}},
    }
    assert deployed.call("/openai/config/update", added, token)[0] == 200

    assert changed(deployed.run(open_webui_signup=True, open_webui_locale="zh-CN")) == 1
    assert changed(deployed.run(open_webui_signup=True, open_webui_locale="zh-CN")) == 0
    # who is logged in stays so
    _, config = deployed.call("/api/v1/auths/admin/config", token=token)
    assert config["ENABLE_SIGNUP"] is True
    assert config["DEFAULT_USER_ROLE"] == "pending"
    assert config["ENABLE_MESSAGE_RATING"] is False
    _, page = deployed.call("/api/config")
    assert page["default_locale"] == "zh-CN"
    _, found = deployed.call("/openai/config", token=token)
    assert found["OPENAI_API_BASE_URLS"] == [f"http://127.0.0.1:{deployed.chat_port}/v1", "http://127.0.0.1:9/v1"]
    assert found["OPENAI_API_KEYS"] == [KEY, "their-key"]
    _, chats = deployed.call("/api/v1/chats/", token=own)
    assert [row["title"] for row in chats] == ["about trains"]
    _, settings = deployed.call("/api/v1/users/user/settings", token=own)
    assert settings["ui"]["system"] == "Be brief."
    _, models = deployed.call("/api/models", token=own)
    assert [row["id"] for row in models["data"]] == ["chat"], "users see what is served"


@pytest.mark.full
def test_files_are_searched_with_the_vectors_of_a_service(deployed: Site, vectors: str) -> None:
    # without one a file is read as a whole, which needs nobody
    deployed.upload(deployed.login(), "The train to Bremen leaves at ten.")
    deployed.run()
    token = deployed.login()
    name = deployed.upload(token, "The train to Hamburg leaves at nine.")
    status, found = deployed.call("/api/v1/retrieval/query/doc", {"collection_name": name, "query": "train"}, token)
    assert status == 200, found
    assert found["documents"] == [["The train to Hamburg leaves at nine."]]
    _, models = deployed.call("/api/models", token=token)
    assert [row["id"] for row in models["data"]] == ["chat"], f"{vectors} is nothing to chat with"


@pytest.mark.full
def test_through_the_gateway_it_has_one_connection_with_a_key_of_its_own(deployed: Site) -> None:
    ports = {"llm_gateway_port": free_port(), "llm_gateway_local_port": free_port()}
    gateway = {
        **ports,
        "llm_gateway_container": GATEWAY,
        "llm_gateway_bind": "127.0.0.1",
        "llm_gateway_directory": str(deployed.folder / "side"),
        "llm_gateway_image_source": "build",
        "llm_gateway_keys": [{"name": "open-webui", "key": "gateway-key-0123456789"}],
    }
    deployed.run(play="gateway", gateway=gateway)
    deployed.run(gateway=gateway)
    token = deployed.login()
    _, found = deployed.call("/openai/config", token=token)
    assert found["OPENAI_API_BASE_URLS"][0] == f"http://127.0.0.1:{ports['llm_gateway_local_port']}/v1"
    assert f"http://127.0.0.1:{deployed.chat_port}/v1" not in found["OPENAI_API_BASE_URLS"]
    question = {"model": "chat", "messages": [{"role": "user", "content": "Say hello"}], "stream": False}
    status, reply = deployed.call("/api/chat/completions", question, token)
    assert status == 200, reply
    assert reply["choices"][0]["message"]["content"].startswith(ANSWER)


def uncovered(page: WebDriver, element: WebElement) -> bool:
    """Whether ``element`` could be clicked on; what is new in this version lies over the page at the first visit."""
    try:
        element.click()
    except ElementClickInterceptedException:
        ActionChains(page).send_keys(Keys.ESCAPE).perform()
        return False
    return True


@pytest.mark.full
def test_a_browser_logs_in_and_gets_an_answer(deployed: Site) -> None:
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    picture = ARTIFACTS / "open-webui.png"
    with browser.browser(BROWSER) as page:
        wait = WebDriverWait(page, 240)
        try:
            page.get(f"http://127.0.0.1:{deployed.port}/auth")
            wait.until(shown.element_to_be_clickable((By.ID, "email"))).send_keys(EMAIL)
            page.find_element(By.ID, "password").send_keys(PASSWORD, Keys.ENTER)
            prompt = wait.until(shown.element_to_be_clickable((By.ID, "chat-input")))
            wait.until(lambda _: uncovered(page, prompt))
            prompt.send_keys("Say hello", Keys.ENTER)
            wait.until(shown.text_to_be_present_in_element((By.TAG_NAME, "body"), ANSWER))
        finally:
            # also where it went wrong, as nothing else shows why
            assert page.save_screenshot(str(picture))
        page.get("about:blank")
        empty = len(page.get_screenshot_as_png())
    assert picture.stat().st_size > 2 * empty


@pytest.mark.full
def test_settings_that_break_it_are_taken_back(deployed: Site) -> None:
    said = deployed.run(code=2, open_webui_env={"DATABASE_URL": "nonsense://x"})
    assert "Could not parse" in said or "nonsense" in said, said
    assert deployed.call("/ready")[0] == 200
    deployed.login()
    # an image in which it is not
    name = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "llmfleet/llama.cpp").split()[0]
    said = deployed.run(code=2, open_webui_image=name)
    assert "/usr/local/bin/python" in said, said
    assert deployed.call("/ready")[0] == 200


@pytest.mark.full
def test_data_stay_until_they_are_purged(deployed: Site) -> None:
    # the image takes minutes to make, and others use it
    stays = ("--skip-tags", "open_webui_image")
    said = deployed.run(*stays, open_webui_state="absent")
    assert "users, chats and settings stay" in said
    assert not running(UI)
    assert not (deployed.home / "files").exists()
    assert (deployed.home / "data" / "webui.db").exists()
    assert changed(deployed.run(*stays, open_webui_state="absent")) == 0
    deployed.run(*stays, open_webui_state="absent", open_webui_purge=True)
    assert not deployed.home.exists()
