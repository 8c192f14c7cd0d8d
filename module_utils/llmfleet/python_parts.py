"""Where the Python packages of a `full` image come from: this host's own places for packages, and PyTorch's index.

PyTorch builds without GPU libraries are not on PyPI; they are looked for in the local places first, then in a list of
indexes and mirrors. Edge code: reads folders and asks indexes.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from ansible.module_utils.llmfleet import image_source as src
from ansible.module_utils.llmfleet.image_source import SourceError
from ansible.module_utils.llmfleet.image_template import PYTHON_FOLDER, SITE_FOLDER
from ansible.module_utils.llmfleet.pip_places import PipPlaces, local_path
from ansible.module_utils.llmfleet.python_scripts import TORCH
from ansible.module_utils.llmfleet.source_fetch import Fetcher, link_or_copy
from ansible.module_utils.llmfleet.source_host import package_places

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.image_request import BuildRequest

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

# PyTorch's own index, then mirrors of it, of which some are one page of files
TORCH_INDEXES = (
    "https://download.pytorch.org/whl/cpu",
    "https://mirrors.nju.edu.cn/pytorch/whl/cpu",
    "https://mirror.sjtu.edu.cn/pytorch-wheels/cpu",
    "https://mirrors.aliyun.com/pytorch-wheels/cpu",
)

PROJECTS: t.Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("certifi", "charset-normalizer", "filelock", "fsspec", "hf-xet", "huggingface-hub", "idna", "jinja2"),
            *("markupsafe", "mpmath", "networkx", "numpy", "packaging", "protobuf", "pyyaml", "regex", "requests"),
            *("safetensors", "sentencepiece", "sympy", "tokenizers", "tqdm", "transformers"),
            *("typing-extensions", "urllib3"),
        ),
        "",
    ),
    "torch": TORCH,
}
"""Project -> version, "" for any. What llama.cpp's requirements-convert_hf_to_gguf.txt comes to."""
_CONFIGURED_CA = "/run/llmfleet/ca.crt"


@dataclass(frozen=True)
class Wheel:
    """The name of a wheel taken apart."""

    project: str
    version: str
    platform: str


def parse_wheel(name: str) -> Wheel | None:
    """Return what the file ``name`` of a wheel says, None when it is none."""
    found = re.fullmatch(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-([^-]+)-([^-]+)-([^-]+)\.whl", unquote(name))
    return Wheel(src.normalized(found[1]), found[2], found[5]) if found else None


def is_wanted(name: str, machine: str, projects: t.Mapping[str, str] = PROJECTS) -> bool:
    """Whether the file ``name`` may be needed for an image of ``machine`` (as uname -m has it)."""
    wheel = parse_wheel(name)
    if wheel is None or wheel.project not in projects:
        return False
    fits = wheel.platform == "any" or wheel.platform.endswith(machine)
    return fits and projects[wheel.project] in ("", wheel.version)


def pip_conf(places: PipPlaces, torch: tuple[str, str], with_ca: bool) -> str:
    """Return pip's configuration for the build.

    ``torch`` is (`index` or `page`, URL) of where PyTorch was found, two empty words when it is a local file.
    """
    kind, url = torch
    indexes = [index for index in places.indexes if local_path(index) is None]
    extra = [*indexes[1:], *([url] if kind == "index" else [])]
    links = [place for place in places.links if local_path(place) is None] + ([url] if kind == "page" else [])
    lines = ["[global]", "timeout = 60", "retries = 5"]
    lines += [f"index-url = {indexes[0]}"] if indexes else ["no-index = true"]
    lines += ["extra-index-url =", *(f"    {one}" for one in extra)] if extra else []
    lines += ["find-links =", *(f"    {one}" for one in links)] if links else []
    lines += [f"cert = {_CONFIGURED_CA}"] if with_ca else []
    return "\n".join(lines) + "\n"


def python_store(params: t.Mapping[str, t.Any], fetcher: Fetcher, request: BuildRequest) -> PythonStore | None:
    """Return where the packages for ``request`` come from, None for an image without Python.

    ``params`` has the module's torch_indexes, pypi_index and pypi_index_fallback.
    """
    if request.contents != "full":
        return None
    return PythonStore(
        fetcher,
        lambda: package_places(params["pypi_index"], params["pypi_index_fallback"]),
        params["torch_indexes"],
        MACHINES[request.architecture],
    )


class PythonStore:
    """Finds the packages; ``ask`` gives pip's places on this host, ``torch_indexes`` are tried in order.

    ``projects`` are the packages with their versions ("" for any); ``needed_by`` and ``option`` are for messages.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        ask: t.Callable[[], PipPlaces],
        torch_indexes: t.Sequence[str],
        machine: str,
        projects: t.Mapping[str, str] = PROJECTS,
        needed_by: str = "The contents full need",
        option: str = "llama_cpp_image_torch_indexes",
    ) -> None:
        self._fetcher, self._ask, self._torch, self._machine = fetcher, ask, tuple(torch_indexes), machine
        self._projects, self._needed_by, self._option = projects, needed_by, option
        self.tried: list[dict[str, str]] = []

    def missing(self) -> str:
        """Return why PyTorch, if it is needed, cannot be had, "" when it can; downloads only index pages."""
        places = self._ask()
        if not places.indexes and not places.links:
            return f"{self._needed_by} Python packages, and pip of this host knows no index; name one in pypi_index."
        try:
            self._find_torch(places, self._local_files(places))
        except SourceError as problem:
            return str(problem)
        return ""

    def bring(self, context: Path, with_ca: bool) -> None:
        """Put the packages of this host into the build's ``context``, and pip's configuration for the others."""
        into, site = context / PYTHON_FOLDER, context / SITE_FOLDER
        into.mkdir(parents=True, exist_ok=True)
        site.mkdir(exist_ok=True)
        places = self._ask()
        files = self._local_files(places)
        torch = self._find_torch(places, files)
        for file in files:
            target = into / unquote(file.name)
            if not target.exists():
                link_or_copy(file, target)
        (site / "pip.conf").write_text(pip_conf(places, torch, with_ca), encoding="utf-8")

    def _find_torch(self, places: PipPlaces, files: t.Sequence[Path]) -> tuple[str, str]:
        if "torch" not in self._projects:
            return "", ""
        wheels = [parse_wheel(file.name) for file in files]
        if any(wheel and wheel.project == "torch" for wheel in wheels):
            self.tried.append({"candidate": f"torch {TORCH}", "result": "a local file"})
            return "", ""
        remote = [index for index in places.indexes if local_path(index) is None]
        for url in (*remote, *(url.rstrip("/") for url in self._torch)):
            for kind, index, name in (("index", url, "torch"), ("page", *url.rsplit("/", 1))):
                if kind == "page" and url in remote:
                    continue
                result = self._offers(index, name)
                self.tried.append(
                    {"candidate": f"torch {TORCH} from {src.public_url(url)}", "result": result or "used"}
                )
                if not result:
                    return kind, url
        reasons = "; ".join(f"{row['candidate']}: {row['result']}" for row in self.tried)
        raise SourceError(
            f"{self._needed_by} torch {TORCH} for {self._machine}, and no place has it ({reasons}); add an index "
            f"to {self._option}, or put its wheel into a find-links folder of pip."
        )

    def _offers(self, index: str, name: str) -> str:
        """Return "" when the page has a fitting file, else why not."""
        try:
            files = replace(self._fetcher, index=lambda: index).listed(name)
        except SourceError as problem:
            return str(problem)
        fits = any(
            is_wanted(file.name.rsplit("/", 1)[-1], self._machine, self._projects)
            for file in files
            if "torch" in file.name
        )
        return "" if fits else "it does not list that version"

    def _local_files(self, places: PipPlaces) -> list[Path]:
        """Return the files in folders and indexes of this host that may be needed."""
        found: list[Path] = []
        for folder in filter(None, map(local_path, places.links)):
            found += sorted(folder.glob("*.whl")) if folder.is_dir() else []
        for root in filter(None, map(local_path, places.indexes)):
            for project in sorted(self._projects):
                page = root / project / "index.html"
                if page.is_file():
                    text = page.read_text(encoding="utf-8", errors="replace")
                    listed = src.parse_index(text, "text/html", page.as_uri())
                    found += [path for path in (local_path(file.url) for file in listed) if path and path.is_file()]
        return [file for file in found if is_wanted(file.name, self._machine, self._projects)]
