"""Where the Python packages of a full image come from, and the stage that they go into."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import image_template, python_parts
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF, BuildRequest
from ansible.module_utils.llmfleet.image_source import IndexFile, SourceError
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.pip_places import PipPlaces
from ansible.module_utils.llmfleet.python_scripts import CONVERTER, PYTHON, TORCH
from ansible.module_utils.llmfleet.source_fetch import Fetcher

TORCH_FILE = f"torch-{TORCH}-cp311-cp311-manylinux_2_28_x86_64.whl"
FULL = BuildRequest(ref=DEFAULT_REF, pins=(), cmake_flags=(), cpu_level="x86-64-v3", contents="full")
BASE = Toolchain("base", "llmfleet/base:debian-bookworm", "debian:bookworm")


class Indexes(Fetcher):
    """Package indexes as a table; each page asked for is noted."""

    pages: t.ClassVar[dict[str, list[str]]] = {}
    asked: t.ClassVar[list[str]] = []

    def listed(self, name: str) -> list[IndexFile]:
        page = f"{self.index()}/{name}"
        self.asked.append(page)
        if page not in self.pages:
            raise SourceError(f"{page} does not answer")
        return [IndexFile(file, f"{page}/{file}", "") for file in self.pages[page]]


@pytest.fixture
def store(tmp_path: Path) -> t.Callable[..., python_parts.PythonStore]:
    """Make a store for pip's places and the pages that answer."""

    def make(
        pages: dict[str, list[str]],
        links: tuple[str, ...] = (),
        indexes: tuple[str, ...] = ("https://index.test/simple",),
    ) -> python_parts.PythonStore:
        Indexes.pages, Indexes.asked = pages, []
        nothing: t.Any = None
        fetcher = Indexes(tmp_path, nothing, nothing, nothing, None, lambda: "", {})
        places = PipPlaces(indexes, links)
        candidates = ["https://a.example/whl/cpu/", "https://b.example/wheels/cpu"]
        return python_parts.PythonStore(fetcher, lambda: places, candidates, "x86_64")

    return make


Make = t.Callable[..., python_parts.PythonStore]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (TORCH_FILE, True),
        (TORCH_FILE.replace("+", "%2B"), True),
        (TORCH_FILE.replace("x86_64", "aarch64"), False),
        ("torch-2.12.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        (f"torch-{TORCH.split('+')[0]}-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("MarkupSafe-3.0.4-cp311-cp311-manylinux2014_x86_64.whl", True),
        ("typing_extensions-4.16.0-py3-none-any.whl", True),
        ("scipy-1.0-cp311-cp311-manylinux2014_x86_64.whl", False),
        ("numpy-2.2.6.tar.gz", False),
    ],
)
def test_which_files_are_wanted(name: str, wanted: bool) -> None:
    assert python_parts.is_wanted(name, "x86_64") is wanted


def test_a_local_file_is_taken_and_no_index_asked(store: Make, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for name in (TORCH_FILE, "scipy-1.0-py3-none-any.whl", "tqdm-4.70.1-py3-none-any.whl"):
        (links / name).write_text(name)
    found = store({}, links=(str(links), links.as_uri(), "https://pages.example/"))
    assert found.missing() == ""
    assert Indexes.asked == []
    found.bring(tmp_path / "context", with_ca=True)
    brought = sorted(path.name for path in (tmp_path / "context/python-wheels").iterdir())
    assert brought == [TORCH_FILE, "tqdm-4.70.1-py3-none-any.whl"]
    conf = (tmp_path / "context/site/pip.conf").read_text()
    assert "index-url = https://index.test/simple\n" in conf
    assert "find-links =\n    https://pages.example/\n" in conf
    assert "cert = /run/llmfleet/ca.crt" in conf
    assert str(links) not in conf


def test_an_index_in_a_folder_is_read(store: Make, tmp_path: Path) -> None:
    root = tmp_path / "simple"
    (root / "torch").mkdir(parents=True)
    (root / "files").mkdir()
    (root / "files" / TORCH_FILE).write_text("x")
    link = f'<a href="../files/{TORCH_FILE.replace("+", "%2B")}">{TORCH_FILE}</a>'
    (root / "torch" / "index.html").write_text(link)
    found = store({}, indexes=(root.as_uri(),))
    assert found.missing() == ""
    found.bring(tmp_path / "context", with_ca=False)
    assert (tmp_path / "context/python-wheels" / TORCH_FILE).read_text() == "x"
    # with nothing on the network to ask, pip must not try
    assert "no-index = true" in (tmp_path / "context/site/pip.conf").read_text()


def test_the_first_index_that_has_pytorch_is_used(store: Make, tmp_path: Path) -> None:
    found = store({"https://b.example/wheels/cpu/torch": [TORCH_FILE]})
    found.bring(tmp_path, with_ca=False)
    conf = (tmp_path / "site/pip.conf").read_text()
    assert "extra-index-url =\n    https://b.example/wheels/cpu\n" in conf
    assert "a.example" not in conf


def test_a_page_of_files_is_no_index(store: Make, tmp_path: Path) -> None:
    found = store({"https://a.example/whl/cpu": [f"torch/{TORCH_FILE.replace('+', '%2B')}", "torchvision-1.whl"]})
    found.bring(tmp_path, with_ca=False)
    conf = (tmp_path / "site/pip.conf").read_text()
    assert "find-links =\n    https://a.example/whl/cpu\n" in conf
    assert "extra-index-url" not in conf


def test_an_index_of_the_host_goes_first(store: Make, tmp_path: Path) -> None:
    mine = ("https://user:secret@mine.example/simple",)
    found = store({f"{mine[0]}/torch": [TORCH_FILE], "https://a.example/whl/cpu/torch": [TORCH_FILE]}, indexes=mine)
    found.bring(tmp_path, with_ca=False)
    assert "a.example" not in (tmp_path / "site/pip.conf").read_text()
    assert "secret" not in str(found.tried)


def test_nothing_that_has_it_is_a_sentence_with_every_reason(store: Make, tmp_path: Path) -> None:
    other = "torch-2.0.0+cpu-cp311-cp311-linux_x86_64.whl"
    found = store({"https://index.test/simple/torch": [other]})
    problem = found.missing()
    assert f"The contents full need torch {TORCH} for x86_64, and no place has it" in problem
    assert "it does not list that version" in problem
    assert "b.example/wheels/cpu does not answer" in problem
    assert "llama_cpp_image_torch_indexes" in problem
    with pytest.raises(SourceError, match="no place has it"):
        found.bring(tmp_path, with_ca=False)


@pytest.mark.parametrize("contents", ["server", "light"])
def test_other_contents_need_no_python(contents: str) -> None:
    request = BuildRequest(ref=DEFAULT_REF, pins=(), cmake_flags=(), cpu_level="x86-64-v3", contents=contents)
    nothing: t.Any = None
    assert python_parts.python_store({}, nothing, request) is None
    text = image_template.dockerfile(request, BASE, True)
    assert "python" not in text
    assert PYTHON not in image_template.parts("cpu", contents)
    assert set(image_template.scripts(BASE, contents)) == {"gather.sh"}
    assert "conversion" in image_template.pruned(contents)


@pytest.mark.parametrize("buildkit", [True, False])
def test_the_stage_of_a_full_image(buildkit: bool) -> None:
    text = image_template.dockerfile(FULL, BASE, buildkit)
    assert "@" not in text.replace("@sha256", "")
    final = text[text.rindex("FROM scratch") :]
    # nothing of the build but what was gathered; Python is a layer that stays when llama.cpp moves on
    assert final.splitlines()[1:5] == [
        "COPY --from=build /out/libs /",
        "COPY --from=python /out/python /",
        "COPY --from=build /out/app /",
        "COPY --from=python /out/converter /",
    ]
    assert "USER 10001:10001" in final
    assert "ENV PATH=/app:/opt/python/bin" in final
    python = text[text.index("AS python") : text.rindex("FROM scratch")]
    assert ("--mount=type=secret,id=pip.conf" in python) is buildkit
    assert ("COPY python-wheels" in python) is not buildkit
    # so that another commit does not install anything again
    assert python.index("python.sh") < python.index("COPY source /src")


def test_the_scripts_are_part_of_the_identity() -> None:
    parts = image_template.parts("cpu", "full")
    assert PYTHON in parts
    assert CONVERTER in parts
    assert TORCH in parts
    assert {"conversion", "gguf-py", "requirements"}.isdisjoint(image_template.pruned("full"))
