"""What the vllm_image module does on a host: keep the image, pull the published one, or build the one for CPUs.

Edge code: the pure parts are vllm_recipe and vllm_image_plan.
"""

from __future__ import annotations

import os
import typing as t
from functools import cached_property
from pathlib import Path

from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet import build_engine, vllm_recipe
from ansible.module_utils.llmfleet import host_edge as edge
from ansible.module_utils.llmfleet.build_host import BuildFailed, BuildHost, build_context
from ansible.module_utils.llmfleet.cpu_level import architecture
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_builder import Settings, build_command, write_site
from ansible.module_utils.llmfleet.image_template import SITE_FOLDER, TOOLS_FOLDER
from ansible.module_utils.llmfleet.python_parts import MACHINES, PythonStore
from ansible.module_utils.llmfleet.registries import split_reference
from ansible.module_utils.llmfleet.source_fetch import Fetcher
from ansible.module_utils.llmfleet.source_host import ca_bundle, make_fetcher, package_places
from ansible.module_utils.llmfleet.vllm_image_removal import prune, remember
from ansible.module_utils.llmfleet.vllm_pins import PINS

Data = dict[str, t.Any]


class VllmImageJob:
    """One run of the module; ``params`` are its parameters, ``run`` has the signature of run_command."""

    def __init__(self, params: t.Mapping[str, t.Any], check_mode: bool, run: t.Callable[..., t.Any]) -> None:
        self.params, self.check_mode, self.run = params, check_mode, run
        self.work = Path(params["work_dir"])
        self.docker = Docker(run, edge.find_program(params["docker_cli"]))
        asked = base.check_base(params["base"]) if params["base"] else ""
        self.request = vllm_recipe.VllmRequest(architecture(os.uname().machine), asked)
        self.log = edge.JobLog(self.work / "logs" / f"vllm-{self.request.key()}.log", params["timeout"])
        self.tried: list[dict[str, str]] = []

    def provide(self) -> Data:
        """Make sure of the image, or in check mode say how; return the module's result."""
        cuda = self.params["variant"] == "cuda"
        if cuda and not self.params["tag"]:
            raise BadInput(
                "variant cuda needs the tag of a published image; the plan gives the one that fits the GPUs."
            )
        if not cuda:
            vllm_recipe.check(self.request)
        wanted = [f"{row}:{self.params['tag']}" for row in self.params["repositories"]] if cuda else []
        wanted = wanted or [self.request.image()]
        there = self._there(wanted)
        if there:
            return self._report("keep", there, "it is on this host")
        engine = build_engine.look(
            self.run, self.docker.executable, self.params["build_cli"], self.params["buildkit"], self.check_mode
        )
        host = engine.host(self.run, self.log, self._fetcher.opener, self.work, self.tried)
        if self.check_mode:
            return self._foresee(host, wanted, cuda)
        with edge.exclusive(self.work):
            # another run may have made it while this one waited
            there = self._there(wanted)
            if there:
                return self._report("keep", there, "it is on this host")
            if cuda:
                return self._report("pull", self._pull(host, wanted), "the published image fits the GPUs")
            self._build(host, engine)
            removed = prune(self.docker, self.request.image())
        return self._report("build", wanted[0], vllm_recipe.WHAT, pruned=removed)

    def _there(self, wanted: t.Sequence[str]) -> str:
        found = edge.images_present(self.docker, wanted, lenient=self.check_mode)
        return vllm_recipe.present(found, wanted)

    def _report(self, action: str, image: str, why: str, **more: t.Any) -> Data:
        # lenient, as nothing is there yet in check mode
        found = edge.images_present(self.docker, [image], lenient=self.check_mode).get(image, {})
        return {
            "changed": action != "keep",
            "action": action,
            "image": image,
            "why": why,
            "image_id": str(found.get("Id", "")),
            "size_bytes": int(found.get("Size") or 0),
            "pruned": [],
            **more,
        }

    def _foresee(self, host: BuildHost, wanted: t.Sequence[str], cuda: bool) -> Data:
        """Say what would be done; raise LlmfleetError when nothing would deliver the image."""
        if not cuda:
            problem = self._python.missing()
            self.tried += self._python.tried
            if problem:
                raise BadInput(problem)
            asked = self._base()
            kind, _ = host.find_base(asked, base.base_references(self.params["base_images"], asked))
            return self._report("build", wanted[0], vllm_recipe.WHAT, base=kind)
        for reference in wanted:
            problem = host.registry_problem(split_reference(reference)[0])
            host.note(reference, problem or "would be pulled")
            if not problem:
                return self._report("pull", reference, "the published image fits the GPUs")
        raise BadInput(f"No registry of vLLM's image answers ({self._said()}); name one that does in repositories.")

    def _base(self) -> str:
        return vllm_recipe.base_of(self.request, base.host_base(edge.read_text("/etc/os-release")))

    def _said(self) -> str:
        return "; ".join(f"{row['candidate']}: {row['result']}" for row in self.tried)

    def _pull(self, host: BuildHost, wanted: t.Sequence[str]) -> str:
        for reference in wanted:
            problem = host.registry_problem(split_reference(reference)[0])
            if not problem and self.log.stream([self.docker.executable, "pull", reference], {}) == 0:
                remember(self.work, reference)
                return reference
            host.note(reference, problem or host.why())
        raise BuildFailed(f"No registry delivers vLLM's image ({self._said()}); name one that does in repositories.")

    def _build(self, host: BuildHost, engine: build_engine.BuildEngine) -> None:
        engine.check_disk(self.work, sdk=True)
        p, request = self.params, self.request
        wanted = self._base()
        _kind, first = host.make_base(wanted, base.base_references(p["base_images"], wanted))
        buildkit = engine.buildkit != "none"
        how = Settings(engine.buildkit, 1, ca_bundle(p["ca_bundle"]), request.labels())
        with build_context(self.work) as context:
            site, tools = context / SITE_FOLDER, context / TOOLS_FOLDER
            site.mkdir()
            tools.mkdir()
            self._python.bring(context, with_ca=bool(how.ca_bundle))
            self.tried += self._python.tried
            around = write_site(host, site, host.apt_sources(wanted), how)
            for name, text in vllm_recipe.scripts().items():
                (tools / name).write_text(text, encoding="utf-8")
            text = vllm_recipe.dockerfile(request.architecture, wanted, buildkit)
            (context / "Dockerfile").write_text(text, encoding="utf-8")
            argv = build_command(host.docker.executable, first, how, *around, sorted(site.iterdir()))
            self._run(host, [*argv, *self._named(), str(context)], buildkit)

    def _named(self) -> list[str]:
        labels = [word for name, value in self.request.labels().items() for word in ("--label", f"{name}={value}")]
        return ["--tag", f"{self.request.image()}-unverified", *labels]

    def _run(self, host: BuildHost, argv: t.Sequence[str], buildkit: bool) -> None:
        """Build the image, try it, and give it its name only then."""
        candidate = f"{self.request.image()}-unverified"
        switch = {"DOCKER_BUILDKIT": "1" if buildkit else "0", "BUILDKIT_PROGRESS": "plain"}
        try:
            if host.stream(argv, switch) != 0:
                raise BuildFailed(f"The build of vLLM failed: {host.why()} (log: {host.log})")
            sandbox = ("--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")  # noqa: S108
            asked = ("--env", "HOME=/tmp", "--entrypoint", "vllm", candidate, "--version")
            rc, out, err = host.docker.attempt("run", "--rm", *sandbox, *asked)
            if rc != 0:
                said = "it uses instructions that this processor does not have" if rc == 132 else (err or out)
                raise BuildFailed(f"vLLM in {candidate} does not run here ({rc}): {' '.join(said.split())[-300:]}")
            host.docker.text("tag", candidate, self.request.image())
        finally:
            host.docker.attempt("rmi", candidate)
            if not buildkit:
                host.docker.attempt("image", "prune", "--force", "--filter", f"label={vllm_recipe.STAGE}=build")

    @cached_property
    def _fetcher(self) -> Fetcher:
        return make_fetcher(self.params, self.work / "sources" / "vllm", self.params["timeout"])

    @cached_property
    def _python(self) -> PythonStore:
        p = self.params
        return PythonStore(
            self._fetcher,
            lambda: package_places(p["pypi_index"], p["pypi_index_fallback"]),
            p["torch_indexes"],
            MACHINES[self.request.architecture],
            PINS,
            "vLLM on a CPU needs",
            "vllm_image_torch_indexes",
        )
