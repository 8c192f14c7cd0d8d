"""The program that starts Open WebUI in its container: settings of the inventory hold, those of the browser stay."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import typing as t
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "roles/open_webui/files/launch.py"
SPEC = importlib.util.spec_from_file_location("open_webui_launch", FILE)
assert SPEC
assert SPEC.loader
launch = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(launch)

SOURCE = """
DEFAULT_CONFIG: dict = {
    'openai.api_keys': OPENAI_API_KEYS,
    'ui.enable_signup': ENABLE_SIGNUP,
    'ui.default_locale': DEFAULT_LOCALE,
    'ui.i18n': {},
}
"""
OURS = {"url": "http://127.0.0.1:8480/v1", "key": "one", "config": {"model_ids": ["chat"]}}


class Data:
    """A data folder with Open WebUI's database in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "webui.db"

    def start(self, image: str = "v1", source: str = SOURCE, **changes: t.Any) -> dict[str, t.Any]:
        env = {"DATA_DIR": str(self.folder), "ENABLE_SIGNUP": "false", **changes.pop("env", {})}
        settings = {"image": image, "env": env, "owned": ["ENABLE_SIGNUP", "WEBUI_NAME"], "connections": [OURS]}
        return t.cast("dict[str, t.Any]", launch.prepare({**settings, **changes}, source))

    def put(self, **rows: t.Any) -> None:
        """Make the table as Open WebUI 0.12 does, or add to it."""
        with sqlite3.connect(self.file) as store:
            store.execute("create table if not exists config (key text primary key, value json, updated_at bigint)")
            store.executemany(
                "insert or replace into config values (?, ?, 0)",
                [(key.replace("__", "."), json.dumps(value)) for key, value in rows.items()],
            )
        store.close()

    @property
    def rows(self) -> dict[str, t.Any]:
        store = sqlite3.connect(self.file)
        found = {key: json.loads(str(value)) for key, value in store.execute("select key, value from config")}
        store.close()
        return found


@pytest.fixture
def data(tmp_path):
    return Data(tmp_path)


def connections(*rows: tuple[str, str], **configs: t.Any) -> dict[str, t.Any]:
    return {
        "openai__api_base_urls": [url for url, _key in rows],
        "openai__api_keys": [key for _url, key in rows],
        "openai__api_configs": {name.strip("_"): value for name, value in configs.items()},
    }


def test_variables_are_related_to_settings_by_its_own_source():
    assert launch.settings_of(SOURCE) == {
        "OPENAI_API_KEYS": "openai.api_keys",
        "ENABLE_SIGNUP": "ui.enable_signup",
        "DEFAULT_LOCALE": "ui.default_locale",
    }
    assert launch.settings_of("DEFAULT_CONFIG = make()") == {}
    assert launch.settings_of("x = 1") == {}


def test_the_first_start_goes_by_the_environment(data):
    env = data.start()
    assert env["OPENAI_API_BASE_URLS"] == OURS["url"]
    assert env["OPENAI_API_KEYS"] == "one"
    assert json.loads(env["OPENAI_API_CONFIGS"]) == {"0": OURS["config"]}
    assert "ENABLE_PERSISTENT_CONFIG" not in env


def test_named_settings_are_taken_anew_and_others_stay(data):
    data.start()
    data.put(ui__enable_signup=True, ui__default_locale="zh-CN", task__title__enable=False, rag__top_k=3)
    data.start()
    assert data.rows == {"ui.default_locale": "zh-CN", "task.title.enable": False, "rag.top_k": 3}


def test_connections_of_the_browser_stay_behind_those_of_the_inventory(data):
    data.start()
    theirs = ("https://api.example.org/v1", "their;key")
    data.put(
        **connections((OURS["url"], "old"), theirs, _0={"tags": ["lab"], "model_ids": ["gone"]}, _1={"enable": True})
    )
    data.start()
    assert data.rows["openai.api_base_urls"] == [OURS["url"], theirs[0]]
    assert data.rows["openai.api_keys"] == ["one", theirs[1]]
    assert data.rows["openai.api_configs"] == {"0": {"tags": ["lab"], "model_ids": ["chat"]}, "1": {"enable": True}}


def test_a_connection_that_left_the_inventory_goes(data):
    gone = {"url": "http://127.0.0.1:8001/v1", "key": "x", "config": {}}
    data.start(connections=[gone, OURS])
    data.put(**connections((gone["url"], "x"), (OURS["url"], "one"), ("https://added", "y"), _2={"enable": True}))
    data.start()
    assert data.rows["openai.api_base_urls"] == [OURS["url"], "https://added"]
    assert data.rows["openai.api_configs"] == {"0": OURS["config"], "1": {"enable": True}}


def test_keys_that_are_missing_break_nothing(data):
    data.start()
    data.put(**connections((OURS["url"], "one")))
    data.put(openai__api_keys=[], openai__api_base_urls=[OURS["url"], "https://added"])
    data.start()
    assert data.rows["openai.api_keys"] == ["one", ""]


@pytest.mark.parametrize("kind", ["older table", "older source", "database elsewhere"])
def test_what_it_does_not_know_goes_by_the_environment_alone(data, kind):
    source, env = SOURCE, {}
    if kind == "older table":
        with sqlite3.connect(data.file) as store:
            store.execute("create table config (id integer primary key, data json)")
        store.close()
    elif kind == "older source":
        source = "CONFIG = 1"
    else:
        env = {"DATABASE_URL": "postgresql://db/webui"}
    assert data.start(source=source, env=env)["ENABLE_PERSISTENT_CONFIG"] == "false"


def test_the_secret_key_is_made_once_and_read_by_nobody_else(data):
    first = data.start()["WEBUI_SECRET_KEY"]
    assert len(first) >= 32
    assert data.start()["WEBUI_SECRET_KEY"] == first
    assert (data.folder / "secret_key").stat().st_mode & 0o777 == 0o400
    assert data.start(env={"WEBUI_SECRET_KEY": "given"})["WEBUI_SECRET_KEY"] == "given"


def copies(data: Data) -> list[str]:
    return sorted(file.name for file in (data.folder / "backups").glob("*"))


def test_a_new_image_leaves_a_copy_of_the_data_behind(data):
    data.start("v1")
    data.put(kept="v1")
    data.start("v1")
    assert not (data.folder / "backups").exists()
    data.start("v2")
    assert copies(data) == [launch.copy_name("v1")]
    data.start("v3")
    assert copies(data) == [launch.copy_name("v2")], "one copy is enough"


def test_an_image_that_returns_at_once_finds_its_data_again(data):
    data.start("v1")
    data.put(kept="v1")
    data.start("v2")
    data.put(kept="v2", migrated=True)
    data.start("v1")
    assert data.rows == {"kept": "v1"}
    store = sqlite3.connect(data.folder / "backups" / launch.copy_name("v2"))
    assert store.execute("select count(*) from config").fetchone() == (2,)
    store.close()


def test_an_image_that_returns_late_keeps_the_newer_data(data):
    data.start("v1")
    data.put(kept="v1")
    data.start("v2")
    old = data.folder / "backups" / launch.copy_name("v1")
    os.utime(old, (0, 0))
    data.put(kept="v2")
    data.start("v1")
    assert data.rows == {"kept": "v2"}
