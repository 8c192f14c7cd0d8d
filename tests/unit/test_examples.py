"""The services in the example inventories and on the front pages are ones that the plan accepts."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.llmfleet.services import parse_all

ROOT = Path(__file__).resolve().parents[2]
INVENTORIES = ("inventory/localhost", "inventory/gpu_hosts")
PAGES = ("README.md", "README.zh-CN.md")


def service_lists(data: t.Any) -> t.Iterator[list[dict[str, t.Any]]]:
    """Yield every llm_services anywhere in ``data``."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "llm_services":
                yield value
            else:
                yield from service_lists(value)


@pytest.mark.parametrize("name", INVENTORIES)
def test_inventory(name: str) -> None:
    # Ansible fills in what stands between the braces
    text = re.sub(r"{{.*?}}", "filled-in", (ROOT / name).read_text())
    found = list(service_lists(yaml.safe_load(text)))
    assert found
    for services in found:
        assert parse_all(services)


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    found = [services for block in blocks for services in service_lists(yaml.safe_load(block))]
    assert found
    for services in found:
        assert parse_all(services)


def test_pages_say_the_same_commands() -> None:
    """The two languages differ in prose only: commands, code and links are equal, comments aside."""
    both = []
    for name in PAGES:
        text = (ROOT / name).read_text()
        code = "\n".join(re.findall(r"^```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        code = re.sub(r"\s+#.*", "", code).replace("你好", "Hello")
        code = re.sub(r"<[^>]*>", "<>", code)
        links = sorted(link for link in re.findall(r"\]\(([^)]*)\)", text) if link not in PAGES)
        both.append((code, links))
    assert both[0] == both[1]
