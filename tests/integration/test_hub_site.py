"""site.yml with models of a hub: planned by what fits, fetched once, served, and kept without asking again."""

from __future__ import annotations

import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import tiny_hf
from ansible.module_utils.llmfleet import tiny_gguf
from helpers import docker, free_port
from test_deploy import LOCAL, changed, site, write_inventory

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))
from hub_server import Hub

GGUF = "org/tiny"
FOLDER = "org/tiny-hf"
GATED = "org/gated"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Hub]:
    """A hub with the tiny model as GGUF in two types of weights, as a folder, and a repository that is gated."""
    root = tmp_path_factory.mktemp("hub")
    for repo, names in ((GGUF, ("tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf")), (GATED, ("gated-Q8_0.gguf",))):
        (root / repo).mkdir(parents=True)
        for name in names:
            with (root / repo / name).open("wb") as file:
                tiny_gguf.write(file)
    tiny_hf.write(root / FOLDER, head_dim=32)
    with Hub(root) as served:
        served.repo(GATED, gated=True)
        yield served


def inventory(folder: Path, hub: Hub, services: list[dict[str, t.Any]], **variables: t.Any) -> Path:
    """Write an inventory of this machine whose models come from ``hub``."""
    folder.chmod(0o755)
    return write_inventory(
        folder / "inventory",
        {"localhost": {**LOCAL, "llm_services": services}},
        llama_cpp_image_source="build",
        model_store_dir=str(folder / "models"),
        model_store_sources=[hub.url],
        llm_service_directory=str(folder / "services"),
        **variables,
    )


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, hub: Hub, image: str) -> t.Iterator[dict[str, t.Any]]:
    """A service of a catalogue of our own and one of the hub, deployed twice; what was printed and what the hub saw."""
    assert image
    folder = tmp_path_factory.mktemp("hub-site")
    services = [
        {"name": "test-hub-quant", "model": f"{GGUF}:Q8_0", "port": free_port()},
        {"name": "test-hub-name", "model": "small", "port": free_port()},
    ]
    catalog = {"small": {"llama_server": f"hf:{GGUF}:Q4_K_M"}}
    path = inventory(folder, hub, services, llm_catalog=catalog)
    hub.reset()
    steps: dict[str, t.Any] = {"folder": folder, "check": site(path, "--check", "--diff")}
    steps["nothing yet"] = not (folder / "models").exists()
    steps["first"] = site(path)
    steps["files asked for"] = [row["path"] for row in hub.requests("cdn")]
    hub.reset()
    steps["second"] = site(path)
    steps["asked again"] = list(hub.log)
    yield steps
    subprocess.run(["docker", "rm", "-f", *(one["name"] for one in services)], capture_output=True, check=False)


def test_check_mode_plans_with_the_hub_and_fetches_nothing(deployed):
    assert deployed["nothing yet"]
    assert re.search(rf"model {GGUF}:Q8_0 +download +Q8_0, 1 MiB, from 127", deployed["check"])
    assert changed(deployed["check"]) > 0


def test_the_plan_says_what_memory_is_needed(deployed):
    assert re.search(r"service test-hub-quant .*fits: \d+ MiB of [\d.]+ GiB", deployed["first"])


def test_both_answer(deployed):
    assert deployed["first"].count(tiny_gguf.ANSWER) >= 2
    assert deployed["second"].count(tiny_gguf.ANSWER) >= 2


def test_the_second_run_changes_nothing_and_asks_no_hub(deployed):
    assert changed(deployed["second"]) == 0
    assert deployed["asked again"] == []


def test_only_what_was_chosen_is_there(deployed):
    files = {path.name for path in (deployed["folder"] / "models").rglob("*.gguf")}
    assert files == {"tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf"}
    assert not list((deployed["folder"] / "models").rglob("incoming-*"))


def test_what_cannot_be_had_or_does_not_fit_is_refused_before_anything_is_fetched(tmp_path, hub, image):
    """Each host of one inventory has its own fault; all of them are named in one run that changes nothing."""
    assert image
    # host name -> (service, words of the sentence that refuses it)
    faults: dict[str, tuple[dict[str, t.Any], str]] = {
        "quant": ({"model": f"{GGUF}:Q5_K_M"}, "there is no Q5_K_M"),
        "gated": ({"model": GATED}, "licence"),
        "nothing": ({"model": "org/nothing"}, "org/nothing"),
        "format": ({"model": FOLDER}, "llama_server takes GGUF"),
        "memory": ({"model": f"{GGUF}:Q8_0", "memory": "8m"}, "does not fit"),
        "context": ({"model": f"{GGUF}:Q8_0", "context_length": 100_000}, "was trained for"),
    }
    folder = tmp_path / "site"
    folder.mkdir()
    path = inventory(folder, hub, [])
    hosts = {
        name: {**LOCAL, "llm_services": [{"name": "test-hub-bad", "port": 18080, **service}]}
        for name, (service, _) in faults.items()
    }
    variables = {"model_store_dir": str(folder / "models"), "model_store_sources": [hub.url]}
    output = site(write_inventory(path, hosts, llama_cpp_image_source="build", **variables), code=2)
    assert "Traceback" not in output
    assert not (folder / "models").exists()
    assert not docker("ps", "--all", "--quiet", "--filter", "name=test-hub-bad")
    for host, (_, words) in faults.items():
        said = "\n".join(re.findall(rf"(?ms)^(?:fatal|failed): \[{host}\].*?(?=^\S)", output))
        assert words in re.sub(r"\s+", " ", said), f"{host}: {said or output}"


@pytest.mark.full
def test_vllm_serves_a_repository_of_the_hub(tmp_path, hub):
    """The image takes some minutes to make where it is not there yet."""
    folder = tmp_path / "site"
    folder.mkdir()
    tmp_path.chmod(0o755)
    service = {"name": "test-hub-vllm", "engine": "vllm", "model": FOLDER, "port": free_port()}
    caches = {"llm_service_cache_directory": str(folder / "cache")}
    path = inventory(folder, hub, [service], **caches)
    try:
        first = site(path)
        hub.reset()
        second = site(path)
    finally:
        subprocess.run(["docker", "rm", "-f", service["name"]], capture_output=True, check=False)
    assert re.search(rf"model {FOLDER} +download +safetensors, 1 MiB", first)
    assert re.search(r"service test-hub-vllm .*fits: ", first)
    assert re.search(r"service test-hub-vllm: ready.*token [\d.]+ s", re.sub(r"\s+", " ", second))
    assert changed(second) == 0
    assert hub.log == []
