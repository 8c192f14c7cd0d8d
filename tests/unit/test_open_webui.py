"""What Open WebUI is started with."""

from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.llmfleet.open_webui.settings import make as wanted

SAID: dict[str, t.Any] = {
    "bind": "127.0.0.1",
    "port": 3000,
    "url": "",
    "admin_email": "",
    "admin_password": "",
    "admin_name": "Admin",
    "signup": False,
    "default_role": "pending",
    "models_for_all": True,
    "secret_key": "",
    "name": "",
    "locale": "",
    "default_model": "",
    "env": {},
    "api_url": "",
    "api_key": "",
}
ACCOUNT = {"admin_email": "admin@example.org", "admin_password": "correct horse"}


def service(name: str, port: int, **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "model": "tiny", "port": port, **more}


CHAT, VECTORS = service("chat", 8001, api_key="k" * 16), service("vectors", 8002, task="embed")


def make(hosts: t.Sequence[t.Any], gateway: t.Any, said: dict[str, t.Any]) -> dict[str, t.Any]:
    rows = [{"host": name, "address": address or name, "services": own} for name, address, own in hosts]
    given = {"port": 8480, "services": [], **gateway} if gateway else {}
    return wanted({**SAID, **said}, rows, "gpu-01", given)


HERE = [("gpu-01", "", [CHAT])]


def settings(*hosts: t.Any, gateway: t.Any = None, **said: t.Any) -> dict[str, t.Any]:
    made = make(hosts or HERE, gateway, said)
    assert made["problem"] == ""
    return t.cast("dict[str, t.Any]", made["settings"])


def problem(*hosts: t.Any, gateway: t.Any = None, **said: t.Any) -> str:
    made = make(hosts or HERE, gateway, said)
    assert made["settings"] == {}
    return str(made["problem"])


def test_without_a_gateway_each_chat_service_is_a_connection():
    far = service("far", 8003, bind="0.0.0.0", api_key="far-key-0123456789")
    made = settings(
        ("gpu-01", "", [CHAT, VECTORS, service("off", 8004, state="stopped")]), ("gpu-02", "10.0.0.2", [far])
    )
    assert made["connections"] == [
        {"url": "http://127.0.0.1:8001/v1", "key": "k" * 16, "config": {}},
        {"url": "http://10.0.0.2:8003/v1", "key": "far-key-0123456789", "config": {}},
    ]


def test_with_a_gateway_there_is_one_connection_with_a_key_of_its_own():
    keys = [{"name": "team", "key": "t" * 20}, {"name": "open-webui", "key": "w" * 20, "services": ["chat", "vectors"]}]
    hosts = [("gpu-01", "", [CHAT, VECTORS, service("hidden", 8005)])]
    made = settings(*hosts, gateway={"keys": keys})
    config = {"model_ids": ["chat"]}
    assert made["connections"] == [{"url": "http://127.0.0.1:8480/v1", "key": "w" * 20, "config": config}]
    assert made["env"]["RAG_OPENAI_API_BASE_URL"] == "http://127.0.0.1:8480/v1"
    # a key that is given is looked up, so that only what it opens is offered
    made = settings(*hosts, gateway={"keys": keys}, api_key="t" * 20)
    assert made["connections"][0]["key"] == "t" * 20
    assert made["connections"][0]["config"] == {"model_ids": ["chat", "hidden"]}
    # what the gateway does not publish is not offered either
    made = settings(*hosts, gateway={"keys": keys, "services": ["hidden"]}, api_key="t" * 20)
    assert made["connections"][0]["config"] == {"model_ids": ["hidden"]}
    # a gateway that asks for no key
    assert settings(*hosts, gateway={"keys": []})["connections"][0]["key"] == ""


def test_an_api_of_ones_own_goes_before_all():
    made = settings(gateway={"keys": []}, api_url="https://llm.example.org/v1/", api_key="x")
    assert made["connections"] == [{"url": "https://llm.example.org/v1", "key": "x", "config": {}}]


def test_files_are_searched_where_a_service_makes_vectors_and_read_as_a_whole_elsewhere():
    plain = settings()
    assert plain["env"]["BYPASS_EMBEDDING_AND_RETRIEVAL"] == "true"
    assert "BYPASS_EMBEDDING_AND_RETRIEVAL" not in plain["owned"], "an administrator may use a service of his own"
    made = settings(("gpu-01", "", [CHAT, VECTORS]))
    assert made["env"]["RAG_EMBEDDING_MODEL"] == "vectors"
    assert made["env"]["BYPASS_EMBEDDING_AND_RETRIEVAL"] == "false"
    assert {"RAG_EMBEDDING_MODEL", "RAG_OPENAI_API_KEY", "BYPASS_EMBEDDING_AND_RETRIEVAL"} <= set(made["owned"])


def test_it_asks_nobody_on_the_internet():
    env = settings()["env"]
    assert env["OFFLINE_MODE"] == "true"
    assert env["ENABLE_VERSION_UPDATE_CHECK"] == "false"
    assert env["RAG_EMBEDDING_ENGINE"] == "openai", "its default fetches a model from the hub"
    assert env["ENABLE_OLLAMA_API"] == "false"


def test_what_is_said_holds_and_what_is_left_open_does_not():
    silent = settings()
    assert set(silent["owned"]) == {"ENABLE_SIGNUP", "DEFAULT_USER_ROLE", "BYPASS_MODEL_ACCESS_CONTROL"}
    assert silent["env"]["ENABLE_SIGNUP"] == "false"
    made = settings(
        signup=True, default_role="user", locale="zh-CN", default_model="chat", name="Lab", url="https://chat.lab",
        env={"ENABLE_WEB_SEARCH": "true"},
    )  # fmt: skip
    wanted = {
        "ENABLE_SIGNUP": "true",
        "DEFAULT_USER_ROLE": "user",
        "DEFAULT_LOCALE": "zh-CN",
        "DEFAULT_MODELS": "chat",
        "WEBUI_NAME": "Lab",
        "WEBUI_URL": "https://chat.lab",
        "ENABLE_WEB_SEARCH": "true",
    }
    assert wanted.items() <= made["env"].items()
    assert set(wanted) <= set(made["owned"])


def test_the_account_and_the_secret_key_are_there_only_when_given():
    assert not {"WEBUI_ADMIN_EMAIL", "WEBUI_SECRET_KEY"} & set(settings()["env"])
    made = settings(**ACCOUNT, secret_key="s" * 32)
    assert made["env"]["WEBUI_ADMIN_PASSWORD"] == "correct horse"
    assert made["env"]["WEBUI_SECRET_KEY"] == "s" * 32
    assert "WEBUI_ADMIN_PASSWORD" not in made["owned"], "it is only what the account begins with"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"bind": "all"}, "open_webui_bind must be an IP address"),
        ({"port": 0}, "open_webui_port must be a port"),
        ({**ACCOUNT, "admin_password": 12345678}, "open_webui_admin_password must be a string"),
        ({"name": None}, "open_webui_name must be a string"),
        ({"env": ["ENABLE_WEB_SEARCH"]}, "open_webui_env must be a mapping"),
        ({"admin_email": "a@b"}, "belong together"),
        ({"admin_email": "admin", "admin_password": "x"}, "must be an address such as admin@example.org"),
        ({**ACCOUNT, "admin_password": "密" * 25}, "longer than 72 bytes"),
        ({"bind": "0.0.0.0"}, "whoever comes first becomes its administrator"),
        ({"default_role": "boss"}, "one of pending, user, admin, not 'boss'"),
        ({"url": "chat.example.org"}, "open_webui_url must be an address"),
        ({"api_url": "http://a;http://b"}, "open_webui_api_url must be an address"),
        ({"api_url": "http://a", "api_key": "a;b"}, "holds `;`"),
        ({"env": {"enable_signup": "true"}}, "is no name of a variable"),
        ({"env": {"ENABLE_SIGNUP": "true"}}, "say it with open_webui_signup"),
        ({"env": {"OPENAI_API_KEY": "x"}}, "say it with open_webui_api_url"),
        ({"env": {"ENABLE_WEB_SEARCH": True}}, "must be a string"),
    ],
)
def test_what_cannot_work_is_refused_with_its_variable(said, words):
    assert words in problem(**said)


@pytest.mark.parametrize(
    ("bind", "url", "listens"),
    [
        ("127.0.0.1", "http://127.0.0.1:3000", "127.0.0.1:3000"),
        ("0.0.0.0", "http://127.0.0.1:3000", "0.0.0.0:3000"),
        ("10.0.0.1", "http://10.0.0.1:3000", "10.0.0.1:3000"),
        ("::", "http://[::1]:3000", "[::]:3000"),
    ],
)
def test_where_it_answers_on_its_own_host(bind, url, listens):
    made = make(HERE, None, {**ACCOUNT, "bind": bind})
    assert (made["url"], made["listens"]) == (url, listens)


def test_a_port_that_another_one_has_is_refused():
    assert "8001 is the port of service chat on this host" in problem(port=8001)
    assert "8480 is the port of the gateway" in problem(port=8480, gateway={"keys": []})
    assert settings(("gpu-01", "", [CHAT, service("gone", 3000, state="absent")]))
    far = service("far", 3000, bind="0.0.0.0", api_key="far-key-0123456789")
    assert settings(("gpu-01", "", [CHAT]), ("gpu-02", "10.0.0.2", [far])), "of another host"


def test_a_password_is_never_in_a_message():
    assert "hunter2" not in problem(admin_password="hunter2" * 12, admin_email="x")


def test_what_it_cannot_reach_is_refused():
    assert "no host of llm_hosts has a started service" in problem(("gpu-01", "", [VECTORS]))
    away = problem(("gpu-01", "", [CHAT]), ("gpu-02", "10.0.0.2", [CHAT]))
    assert "cannot reach service chat on gpu-02" in away
    assert "llm_gateway" in away
    wrong = [{"name": "chat", "modle": "x"}]
    assert problem(("gpu-01", "", wrong)).startswith("service chat: unknown key `modle`"), "the role names this host"
    assert problem(("gpu-02", "", wrong)).startswith("gpu-02: service chat: unknown key `modle`")


def test_a_gateway_without_a_key_for_it_is_refused():
    gateway = {"keys": [{"name": "team", "key": "t" * 20}]}
    assert 'add {name: open-webui, key: "..."} to llm_gateway_keys' in problem(gateway=gateway)
    assert "none of llm_gateway_keys" in problem(gateway=gateway, api_key="s" * 20)
    assert "llm_gateway_keys[0]: must be a mapping" in problem(gateway={"keys": ["t" * 20]})
    narrow = {"keys": [{"name": "open-webui", "key": "t" * 20, "services": ["vectors"]}]}
    assert "no model to talk to" in problem(("gpu-01", "", [CHAT, VECTORS]), gateway=narrow)
