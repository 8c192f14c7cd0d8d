"""Making the Python environment of vLLM on a host, or keeping it. Edge code; what it is made of stands in recipe."""

from __future__ import annotations

import os
import shutil
import tempfile
import typing as t
from functools import cached_property
from pathlib import Path

from ansible.module_utils.llmfleet import host_edge as edge
from ansible.module_utils.llmfleet.cpu_level import architecture
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.image_template import PYTHON_FOLDER, SITE_FOLDER
from ansible.module_utils.llmfleet.python_parts import MACHINES, PythonStore
from ansible.module_utils.llmfleet.source_host import ca_bundle, make_fetcher, package_index, package_places
from ansible.module_utils.llmfleet.timed_run import timed_run
from ansible.module_utils.llmfleet.venv import environments, recipe
from ansible.module_utils.llmfleet.vllm_pins import PINS

Data = dict[str, t.Any]

_ASK_VERSION = "import sys; print(*sys.version_info[:2])"


def pythons(asked: str) -> dict[str, tuple[int, int] | None]:
    """Return program -> its version, None where the host has none of that name."""
    found: dict[str, tuple[int, int] | None] = {}
    for name in dict.fromkeys([*([asked] if asked else []), *recipe.PYTHONS]):
        program = edge.find_program(name)
        answer = timed_run([program, "-c", _ASK_VERSION], 20) if program else None
        words = answer.out.split() if answer and answer.rc == 0 else []
        found[name] = (int(words[0]), int(words[1])) if len(words) == 2 else None
    return found


class VenvJob:
    """One run of the module vllm_venv; ``params`` are its parameters."""

    def __init__(self, params: t.Mapping[str, t.Any], check_mode: bool) -> None:
        self.params, self.check_mode = params, check_mode
        self.work = Path(params["work_dir"])
        found = pythons(params["python"])
        wanted = params["version"] if params["variant"] == recipe.CUDA else ""
        self.python = recipe.choose_python(params["python"], wanted, found)
        version = t.cast("tuple[int, int]", found[self.python])
        machine = architecture(os.uname().machine)
        self.request = recipe.request_for(params["variant"], params["version"], machine, version)
        self.path = Path(self.request.path(params["root"]))
        self.log = edge.JobLog(self.work / "logs" / f"venv-{self.request.key()}.log", params["timeout"])
        self.tried: list[dict[str, str]] = []

    def provide(self) -> Data:
        """Make sure of the environment, or in check mode say how; return the module's result."""
        if environments.is_whole(self.path):
            return self._report("keep", "it is on this host")
        if self.check_mode:
            problem = self._store.missing() if self.request.variant == recipe.CPU else ""
            self.tried += self._store.tried if self.request.variant == recipe.CPU else []
            if problem:
                raise BadInput(problem)
            self._check_disk()
            return self._report("build", self.request.what())
        with edge.exclusive(self.work):
            # another run may have made it while this one waited
            if environments.is_whole(self.path):
                return self._report("keep", "it is on this host")
            self._check_disk()
            self._make()
        return self._report("build", self.request.what())

    def _report(self, action: str, why: str) -> Data:
        return {
            "changed": action != "keep",
            "action": action,
            "venv": str(self.path),
            "python": self.python,
            "why": why,
        }

    def _check_disk(self) -> None:
        place = self.path
        while not place.exists():
            place = place.parent
        free, needs = shutil.disk_usage(place).free, recipe.NEEDS_BYTES[self.request.variant]
        if free < needs:
            raise BadInput(
                f"{place} has {free >> 30} GiB free, and vLLM's environment needs {needs >> 30}; free some, or choose "
                "another folder in vllm_venv_root."
            )

    def _make(self) -> None:
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._run([edge.find_program(self.python), "-m", "venv", str(self.path)])
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                self._install(Path(folder))
            if self.request.variant == recipe.CPU:
                self._name_it_vllm()
            # what a user of the host starts, started once: it imports all that an engine needs
            self._run([str(self.path / "bin" / "vllm"), "--version"], {"HOME": str(self.path), "USER": "root"})
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        facts = {"key": self.request.key(), "variant": self.request.variant, "version": self.request.version}
        environments.finish(self.path, facts)

    def _install(self, folder: Path) -> None:
        file = folder / "requirements.txt"
        file.write_text(self.request.requirements(), encoding="utf-8")
        pip = [str(self.path / "bin" / "pip"), "install", "--no-cache-dir", "--progress-bar=off", "-r", str(file)]
        bundle = ca_bundle(self.params["ca_bundle"])
        env = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **({"PIP_CERT": bundle} if bundle else {})}
        if self.request.variant == recipe.CPU:
            self._store.bring(folder, with_ca=False)
            self.tried += self._store.tried
            # every package is named with its version, so nothing is left to resolve
            pip += ["--no-deps", "--only-binary=:all:", "--find-links", str(folder / PYTHON_FOLDER)]
            env["PIP_CONFIG_FILE"] = str(folder / SITE_FOLDER / "pip.conf")
        else:
            index = package_index(self.params["pypi_index"], self.params["pypi_index_fallback"])
            # an argument would show a password in it to every user of the host
            env.update({"PIP_INDEX_URL": index} if index else {})
        self._run(pip, env)

    def _name_it_vllm(self) -> None:
        """Let the command find its version, which it looks for under the name of the package for GPUs."""
        for folder in self.path.glob("lib/python3*/site-packages"):
            info = folder / f"vllm-{self.request.version}+cpu.dist-info"
            info.mkdir()
            text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {self.request.version}+cpu\n"
            (info / "METADATA").write_text(text, encoding="utf-8")
            (info / "RECORD").touch()

    def _run(self, argv: t.Sequence[str], env: t.Mapping[str, str] | None = None) -> None:
        if self.log.stream(argv, env or {}) == 0:
            return
        lines = [line for line in edge.read_text(self.log.name()).splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "it said nothing")
        raise LlmfleetError(
            f"vLLM's environment cannot be made, {' '.join(argv[:3])} failed: {said.strip()[:300]} "
            f"(log: {self.log.name()})"
        )

    @cached_property
    def _store(self) -> PythonStore:
        p = self.params
        return PythonStore(
            make_fetcher(p, self.work / "sources" / "vllm", p["timeout"]),
            lambda: package_places(p["pypi_index"], p["pypi_index_fallback"]),
            p["torch_indexes"],
            MACHINES[self.request.architecture],
            PINS,
            "vLLM on a CPU needs",
            "vllm_venv_torch_indexes",
        )


def remove(root: Path, units: Path, work: Path, check_mode: bool) -> Data:
    """Remove the environments, logs and the engine's caches; environments that a unit runs from are left, named."""
    used = environments.used_by(units)
    paths = environments.unused(root, units)
    logs = sorted((work / "logs").glob("venv-*.log"))
    caches = [] if used else [path for path in [work / "cache" / "vllm-venv"] if path.is_dir()]
    if not check_mode:
        for path in paths:
            environments.discard(path)
        for path in caches:
            shutil.rmtree(path)
        for path in logs:
            path.unlink()
        for folder in (root, work / "cache", work / "logs"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        lock = work / edge.LOCK
        if lock.exists() and [path.name for path in work.iterdir()] == [edge.LOCK]:
            # nothing else of ours is left that it could guard
            lock.unlink()
    removed = [str(path) for path in (*paths, *caches, *logs)]
    return {"changed": bool(removed), "action": "remove", "removed": removed, "in_use": used}
