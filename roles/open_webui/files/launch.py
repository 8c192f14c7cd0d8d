"""Start Open WebUI with its settings; runs in its container, with nothing but Python's standard library.

Open WebUI keeps its settings in its database from the first start on and then takes no notice of the environment. Here
those that the inventory names are put right before each start. All others are left as they were set in the browser, and
so are connections that were added there.

Secrets come from a file and not from the container's own environment, which everybody who may use docker could read.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import sqlite3
import sys
import time
import typing as t
from pathlib import Path

Data = dict[str, t.Any]

STATE = "llmfleet.json"
"""In the data folder: what the last start was with."""
ROLLBACK_SECONDS = 1800
"""How long a change of the image may take to be taken back with the data as they were."""
URLS, KEYS, CONFIGS = "openai.api_base_urls", "openai.api_keys", "openai.api_configs"


def settings_of(source: str) -> dict[str, str]:
    """Return variable of the environment -> key in the database, as Open WebUI's config.py relates them."""
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "DEFAULT_CONFIG" for target in targets):
            value = getattr(node, "value", None)
            rows = zip(value.keys, value.values) if isinstance(value, ast.Dict) else ()
            named = ((key, said) for key, said in rows if isinstance(key, ast.Constant) and isinstance(said, ast.Name))
            return {said.id: str(key.value) for key, said in named}
    return {}


def merge(rows: Data, ours: list[Data], before: list[str]) -> Data:
    """Return the rows of the connections: ``ours``, then those that were added in the browser.

    ``before``: addresses that were ours at the last start. What was set in the browser for one of ours, such as tags,
    stays; but its models are as the inventory has them.
    """
    urls: list[str] = rows.get(URLS) or []
    keys: list[str] = rows.get(KEYS) or []
    configs: Data = rows.get(CONFIGS) or {}
    there: list[tuple[str, str, Data]] = [
        (url, keys[at] if at < len(keys) else "", configs.get(str(at)) or configs.get(url) or {})
        for at, url in enumerate(urls)
    ]
    own = {row["url"] for row in ours}
    kept = {url: config for url, _key, config in there}
    merged = [(row["url"], row["key"], {**kept.get(row["url"], {}), **row["config"]}) for row in ours]
    merged += [row for row in there if row[0] not in own and row[0] not in before]
    return {
        URLS: [url for url, _key, _config in merged],
        KEYS: [key for _url, key, _config in merged],
        CONFIGS: {str(at): config for at, (_url, _key, config) in enumerate(merged) if config},
    }


def put_right(database: Path, owned: t.Iterable[str], ours: list[Data], before: list[str]) -> bool:
    """Let the database hold what the inventory says; return False where it is built in another way.

    What is taken out of it is taken from the environment again at the start.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as store, store:
        columns = [row[1] for row in store.execute("pragma table_info(config)")]
        if not columns:
            return True  # it has never been started
        if columns[:2] != ["key", "value"]:
            return False
        # these three only: SQLite takes the texts of numbers for numbers
        found = store.execute("select key, value from config where key in (?, ?, ?)", (URLS, KEYS, CONFIGS))
        rows = {key: json.loads(value) for key, value in found}
        new = {key: value for key, value in merge(rows, ours, before).items() if key in rows}
        store.executemany("delete from config where key = ?", [(key,) for key in owned if key not in new])
        written = [(json.dumps(value), int(time.time()), key) for key, value in new.items() if rows[key] != value]
        store.executemany("update config set value = ?, updated_at = ? where key = ?", written)
    return True


def copy_name(image: str) -> str:
    """Return the file name of the database as ``image`` left it."""
    return f"webui-{hashlib.sha256(image.encode()).hexdigest()[:12]}.db"


def keep_copy(data: Path, image: str, before: str) -> None:
    """Keep the database as the image ``before`` leaves it; put it back when that one returns at once.

    A newer version changes the tables, and an older one cannot read them then.
    """
    database, folder = data / "webui.db", data / "backups"
    if not database.exists() or before in ("", image):
        return
    folder.mkdir(exist_ok=True)
    own, left = folder / copy_name(image), folder / copy_name(before)
    if own.exists() and time.time() - own.stat().st_mtime < ROLLBACK_SECONDS:
        print(f"llmfleet: back to {image} with its data", flush=True)
        for tail in ("-wal", "-shm"):
            Path(f"{database}{tail}").unlink(missing_ok=True)
        database.replace(left)
        shutil.copy2(own, database)
        return
    part = folder / "part"
    part.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(database)) as old, contextlib.closing(sqlite3.connect(part)) as copy:
        old.backup(copy)
    part.replace(left)
    for file in folder.glob("webui-*.db"):
        if file != left:
            file.unlink()


def secret_key(data: Path) -> str:
    """Return what sessions and stored secrets are signed with: made once, and kept with the data it belongs to."""
    file = data / "secret_key"
    if not file.exists():
        part = data / "secret_key.part"
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(48))
        part.replace(file)
    return file.read_text(encoding="ascii")


def prepare(settings: Data, source: str) -> Data:
    """Put data and settings in order; return the environment to start with."""
    data = Path(settings["env"]["DATA_DIR"])
    note = data / STATE
    last = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    keep_copy(data, settings["image"], last.get("image", ""))
    known = settings_of(source)
    owned = [known[name] for name in settings["owned"] if name in known]
    ours = settings["connections"]
    env = dict(settings["env"])
    # the database is another one then, which nothing here can look into
    elsewhere = bool(env.get("DATABASE_URL"))
    if elsewhere or not known or not put_right(data / "webui.db", owned, ours, last.get("urls", [])):
        print("llmfleet: the settings of this database are not used, those of the inventory are", flush=True)
        env["ENABLE_PERSISTENT_CONFIG"] = "false"
    env["WEBUI_SECRET_KEY"] = env.get("WEBUI_SECRET_KEY") or secret_key(data)
    env["OPENAI_API_BASE_URLS"] = ";".join(row["url"] for row in ours)
    env["OPENAI_API_KEYS"] = ";".join(row["key"] for row in ours)
    env["OPENAI_API_CONFIGS"] = json.dumps({str(at): row["config"] for at, row in enumerate(ours) if row["config"]})
    part = note.with_suffix(".part")
    part.write_text(json.dumps({"image": settings["image"], "urls": [row["url"] for row in ours]}), encoding="utf-8")
    part.replace(note)
    return env


def main() -> None:
    settings = json.loads(Path(__file__).with_name("settings.json").read_text(encoding="utf-8"))
    # the official image has the program in the folder it starts in
    sys.path.insert(0, os.getcwd())
    found = importlib.util.find_spec("open_webui")
    if found is None or not found.submodule_search_locations:
        sys.exit("llmfleet: there is no Open WebUI in this image")
    source = Path(next(iter(found.submodule_search_locations)), "config.py").read_text(encoding="utf-8")
    os.environ.update(prepare(settings, source))
    host, port = settings["listen"]
    # browsers hold connections open for ever, and the gateway is the only one whose word about clients counts
    options = ("--timeout-graceful-shutdown", "5", "--forwarded-allow-ips", "127.0.0.1", "--workers", "1")
    command = ("-m", "uvicorn", "open_webui.main:app", "--host", host, "--port", str(port), *options)
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - this very Python


if __name__ == "__main__":
    main()
