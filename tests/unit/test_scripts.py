"""The scripts around the playbooks: documentation, collections, bootstrap."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import types
import typing as t
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.services import Service, Verify

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> types.ModuleType:
    """Import a script, which has no suffix."""
    loader = SourceFileLoader(f"script_{name}", str(ROOT / "scripts" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def docs() -> types.ModuleType:
    return load("docs")


def table(page: str, first: str) -> dict[str, str]:
    """Return key -> default of the table in ``page`` whose first head cell is ``first``."""
    lines = page.split(f"| {first} |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("`"): row[2].strip("`") for row in rows}


def written(value: t.Any) -> str:
    """Return a default as the documentation writes it."""
    if isinstance(value, str):
        return value or '""'
    return json.dumps(int(value) if isinstance(value, float) else value, default=str)


def test_services_page_lists_the_keys_of_a_service() -> None:
    page = (ROOT / "docs" / "services.md").read_text()
    fields = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(Service)
        if field.name != "has_api_key" and field.default is not dataclasses.MISSING
    }
    expected = {name: "" if default is None else written(default) for name, default in fields.items()}
    expected |= {"name": "**required**", "api_key": '""', "args": "[]", "models": "{}", "env": "{}", "verify": "{}"}
    assert table(page, "Key") == expected


def test_services_page_lists_the_keys_of_verify() -> None:
    page = (ROOT / "docs" / "services.md").read_text()
    fields = {field.name: written(field.default) for field in dataclasses.fields(Verify)}
    assert table(page, "Key in `verify`") == fields


def test_tables_of_a_service_are_written_between_the_marker_lines(docs: types.ModuleType) -> None:
    page = docs.services_page(f"# Services\n\n{docs.BEGIN}\nold\n{docs.END}\n\nafter\n")
    assert page.startswith(f"# Services\n\n{docs.BEGIN}\n\n| Key | Type | Default | Meaning |\n| --- |")
    assert page.endswith(f" |\n\n{docs.END}\n\nafter\n")
    assert "| `port` | int | `0` | TCP port on the host. |" in page
    assert "`tiny`: [models.md](models.md). |" in page
    by_hand = (ROOT / "docs" / "services.md").read_text()
    for head in ("Key", "Key in `verify`"):
        assert table(page, head) == table(by_hand, head)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"failed to open GGUF file '(?P<file>[^']+)'", "`failed to open GGUF file '<file>'`"),
        (r"(?P<file>[^']+)\s+\(Permission denied\)", "`<file> (Permission denied)`"),
        (r"^error: (?P<what>.*)", "`error: <what>`"),
        (r"one thing|another", "`one thing` or `another`"),
        (r"t(ook|akes) long|[Nn]o (?:more )?time", "`took long` or `takes long` or `no more time`"),
        (r"say `so`", "`` say `so` ``"),
        (r"flag \"(?P<flag>[^\"]+)\": (?P<why>.*)", '`flag "<flag>": <why>`'),
    ],
)
def test_failure_patterns_are_made_readable(docs: types.ModuleType, pattern: str, text: str) -> None:
    assert docs.troubleshooting_page.readable(pattern) == text


def test_no_row_of_the_failure_guide_shows_a_regular_expression() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if re.search(r"\(\?|\[\w{2}\]\w|\\[^|]|\)\?", row.split(" | ")[0])] == []


def test_every_link_within_the_failure_guide_leads_to_a_heading() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    headings = {line[3:].lower().replace(" ", "-") for line in page.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings


def test_option_rows_show_nested_options(docs: types.ModuleType) -> None:
    options = {
        "x_list": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "description": ["C(a|b) and O(c)."],
            "options": {"key": {"required": True, "choices": ["one", "two"], "description": "Which."}},
        }
    }
    rows = list(docs.option_rows(options))
    assert rows == [
        ["`x_list`", "list of dict", "`[]`", "`a|b` and `c`."],
        ["`x_list[].key`", "str", "**required**", "Which. One of `one`, `two`."],
    ]
    assert docs.table(("A",), [["a|b"]])[-1] == "| a\\|b |"


def test_readme_keeps_what_is_written_by_hand(docs: types.ModuleType, tmp_path: Path) -> None:
    role = tmp_path / "web"
    (role / "meta").mkdir(parents=True)
    (role / "meta" / "argument_specs.yml").write_text(
        "argument_specs: {main: {options: {web_port: {type: int, default: 80, description: Port.}}}}"
    )
    (role / "README.md").write_text(f"# web\n\n{docs.BEGIN}\nold\n{docs.END}\n\nafter\n")
    text = docs.role_readme(role)
    assert text.startswith("# web\n\n")
    assert text.endswith(f"{docs.END}\n\nafter\n")
    assert "| `web_port` | int | `80` | Port. |" in text
    assert "old" not in text

    (role / "README.md").write_text("# web\n")
    with pytest.raises(SystemExit, match=r"web/README\.md needs the lines"):
        docs.role_readme(role)


@pytest.fixture
def collections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The script with a tree of its own, no Galaxy, and a distribution that carries community.docker 4.8.5."""
    module = load("collections")
    requirements = tmp_path / "requirements.yml"
    requirements.write_text("collections: [{name: community.docker, version: '>=4.8.5,<6.0.0'}]")
    target = tmp_path / ".cache" / "collections"
    monkeypatch.setattr(module, "REQUIREMENTS", requirements)
    monkeypatch.setattr(module, "TARGET", target)
    monkeypatch.setattr(module, "STAMP", target / module.STAMP.name)
    monkeypatch.setattr(module, "galaxy_answers", lambda: False)

    def download(command: list[str], **_: t.Any) -> subprocess.CompletedProcess[str]:
        info = {"namespace": "community", "name": "docker", "version": "4.8.5"}
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "ansible.whl", "w") as wheel:
            wheel.writestr("ansible_collections/community/docker/MANIFEST.json", json.dumps({"collection_info": info}))
            wheel.writestr("ansible_collections/community/other/MANIFEST.json", "{}")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", download)
    return module


def test_collections_come_out_of_pypi_without_galaxy(
    collections: types.ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collections.main()
    assert "community.docker 4.8.5 from the PyPI distribution" in capsys.readouterr().out
    assert [path.name for path in (collections.TARGET / "ansible_collections" / "community").iterdir()] == ["docker"]

    monkeypatch.delattr(subprocess, "run")  # a second run starts no process
    collections.main()
    assert "up to date" in capsys.readouterr().out


def test_collections_refuse_a_version_out_of_range_and_keep_the_old_ones(collections: types.ModuleType) -> None:
    collections.main()
    collections.REQUIREMENTS.write_text("collections: [{name: community.docker, version: '>=5.0.0'}]")
    with pytest.raises(SystemExit, match=r"wants community\.docker >=5\.0\.0, .* carries 4\.8\.5"):
        collections.main()
    assert (collections.TARGET / "ansible_collections/community/docker/MANIFEST.json").is_file()


def test_bootstrap_says_which_python_it_needs(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    # no apt-get among them: this must not install anything
    for tool in ("dirname", "cat", "sha256sum", "cut", "env"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "bootstrap", tmp_path / "scripts")
    done = subprocess.run(
        ["/bin/sh", str(tmp_path / "scripts" / "bootstrap")],
        env={"PATH": str(tools), "PYTHON": "/bin/false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
