"""Making sure of an image on a host: keep it, pull the published one, or build one of packages. Edge code."""

from __future__ import annotations

import typing as t
from functools import cached_property
from pathlib import Path

from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet import build_engine
from ansible.module_utils.llmfleet import host_edge as edge
from ansible.module_utils.llmfleet.build_host import BuildFailed, BuildHost, build_context
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_builder import Settings, build_command, write_site
from ansible.module_utils.llmfleet.image_template import PYTHON_FOLDER, SITE_FOLDER, TOOLS_FOLDER
from ansible.module_utils.llmfleet.packaged.base import STAGE, Buildable
from ansible.module_utils.llmfleet.packaged.removal import Leavings
from ansible.module_utils.llmfleet.python_parts import MACHINES, PythonStore
from ansible.module_utils.llmfleet.registries import split_reference
from ansible.module_utils.llmfleet.source_fetch import Fetcher
from ansible.module_utils.llmfleet.source_host import ca_bundle, make_fetcher, package_places

Data = dict[str, t.Any]


class PackagedJob:
    """One run of a module; ``params`` are its parameters, ``run`` has the signature of run_command.

    ``published`` are references of the published image, in order; with none of them, or with ``builds`` where no
    registry delivers, ``request`` is built. ``why`` is the reason for a pull.
    """

    def __init__(
        self,
        params: t.Mapping[str, t.Any],
        check_mode: bool,
        run: t.Callable[..., t.Any],
        request: Buildable,
        published: t.Sequence[str],
        builds: bool,
        why: str,
    ) -> None:
        self.params, self.check_mode, self.run = params, check_mode, run
        self.work = Path(params["work_dir"])
        self.docker = Docker(run, edge.find_program(params["docker_cli"]))
        self.request, self._published, self._builds, self._why = request, list(published), builds, why
        self._leavings = Leavings(request.slug, request.repository)
        self.log = edge.JobLog(self.work / "logs" / f"{request.slug}-{request.key()}.log", params["timeout"])
        self.tried: list[dict[str, str]] = []

    def provide(self) -> Data:
        """Make sure of the image, or in check mode say how; return the module's result."""
        if self._builds and not self._published:
            self.request.check()
        there = self._there()
        if there:
            return self._report("keep", there, "it is on this host")
        p = self.params
        engine = build_engine.look(self.run, self.docker.executable, p["build_cli"], p["buildkit"], self.check_mode)
        host = engine.host(self.run, self.log, self._fetcher.opener, self.work, self.tried)
        if self.check_mode:
            return self._foresee(host)
        with edge.exclusive(self.work):
            # another run may have made it while this one waited
            there = self._there()
            if there:
                return self._report("keep", there, "it is on this host")
            pulled = self._pull(host)
            if pulled:
                return self._report("pull", pulled, self._why)
            self.request.check()
            self._build(host, engine)
            removed = self._leavings.prune(self.docker, self.request.image())
        return self._report("build", self.request.image(), self.request.what, pruned=removed)

    def _there(self) -> str:
        wanted = [*self._published, *([self.request.image()] if self._builds else [])]
        found = edge.images_present(self.docker, wanted, lenient=self.check_mode)
        return next((reference for reference in wanted if reference in found), "")

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

    def _foresee(self, host: BuildHost) -> Data:
        """Say what would be done; raise LlmfleetError when nothing would deliver the image."""
        for reference in self._published:
            problem = host.registry_problem(split_reference(reference)[0])
            host.note(reference, problem or "would be pulled")
            if not problem:
                return self._report("pull", reference, self._why)
        if not self._builds:
            raise BadInput(
                f"No registry of {self.request.title}'s image answers ({self._said()}); name one that does in "
                "repositories."
            )
        self.request.check()
        problem = self._python.missing() if self.request.packages else ""
        self.tried += self._python.tried if self.request.packages else []
        if problem:
            raise BadInput(problem)
        asked = self._base()
        kind, _ = host.find_base(asked, base.base_references(self.params["base_images"], asked))
        return self._report("build", self.request.image(), self.request.what, base=kind)

    def _base(self) -> str:
        return self.request.base_of(base.host_base(edge.read_text("/etc/os-release")))

    def _said(self) -> str:
        return "; ".join(f"{row['candidate']}: {row['result']}" for row in self.tried)

    def _pull(self, host: BuildHost) -> str:
        """Return the reference that a registry has delivered, "" when it is to be built."""
        for reference in self._published:
            problem = host.registry_problem(split_reference(reference)[0])
            if not problem and self.log.stream([self.docker.executable, "pull", reference], {}) == 0:
                self._leavings.remember(self.work, reference)
                return reference
            host.note(reference, problem or host.why())
        if self._builds:
            return ""
        raise BuildFailed(
            f"No registry delivers {self.request.title}'s image ({self._said()}); name one that does in repositories."
        )

    def _build(self, host: BuildHost, engine: build_engine.BuildEngine) -> None:
        engine.check_disk(self.work, sdk=self.request.needs_room)
        p, request = self.params, self.request
        wanted = self._base()
        _kind, first = host.make_base(wanted, base.base_references(p["base_images"], wanted))
        buildkit = engine.buildkit != "none"
        how = Settings(engine.buildkit, 1, ca_bundle(p["ca_bundle"]), request.labels())
        with build_context(self.work) as context:
            site, tools = context / SITE_FOLDER, context / TOOLS_FOLDER
            for folder in (site, tools, context / PYTHON_FOLDER):
                folder.mkdir()
            if request.packages:
                self._python.bring(context, with_ca=bool(how.ca_bundle))
                self.tried += self._python.tried
            around = write_site(host, site, host.apt_sources(wanted), how)
            for name, text in request.scripts().items():
                (tools / name).write_text(text, encoding="utf-8")
            (context / "Dockerfile").write_text(request.dockerfile(wanted, buildkit), encoding="utf-8")
            argv = build_command(host.docker.executable, first, how, *around, sorted(site.iterdir()))
            self._make(host, [*argv, *self._named(), str(context)], buildkit)

    def _named(self) -> list[str]:
        labels = [word for name, value in self.request.labels().items() for word in ("--label", f"{name}={value}")]
        return ["--tag", f"{self.request.image()}-unverified", *labels]

    def _make(self, host: BuildHost, argv: t.Sequence[str], buildkit: bool) -> None:
        """Build the image, try it, and give it its name only then."""
        title, candidate = self.request.title, f"{self.request.image()}-unverified"
        switch = {"DOCKER_BUILDKIT": "1" if buildkit else "0", "BUILDKIT_PROGRESS": "plain"}
        try:
            if host.stream(argv, switch) != 0:
                raise BuildFailed(f"The build of {title} failed: {host.why()} (log: {host.log})")
            sandbox = ("--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")  # noqa: S108
            program, *words = self.request.trial
            asked = ("--env", "HOME=/tmp", "--entrypoint", program, candidate, *words)
            rc, out, err = host.docker.attempt("run", "--rm", *sandbox, *asked)
            if rc != 0:
                said = "it uses instructions that this processor does not have" if rc == 132 else (err or out)
                raise BuildFailed(f"{title} in {candidate} does not run here ({rc}): {' '.join(said.split())[-300:]}")
            host.docker.text("tag", candidate, self.request.image())
        finally:
            host.docker.attempt("rmi", candidate)
            if not buildkit:
                host.docker.attempt("image", "prune", "--force", "--filter", f"label={STAGE}=build")

    @cached_property
    def _fetcher(self) -> Fetcher:
        return make_fetcher(self.params, self.work / "sources" / self.request.slug, self.params["timeout"])

    @cached_property
    def _python(self) -> PythonStore:
        p, request = self.params, self.request
        return PythonStore(
            self._fetcher,
            lambda: package_places(p["pypi_index"], p["pypi_index_fallback"]),
            p.get("torch_indexes") or (),
            MACHINES[request.architecture],
            request.packages,
            f"The image of {request.title} needs",
            f"{request.slug}_image_torch_indexes",
        )
