"""This host as a builder of CUDA images that no registry answers: our parts, put together as the module does it."""

from __future__ import annotations

import os
import typing as t
from contextlib import contextmanager
from pathlib import Path

from ansible.module_utils.llmfleet import base_image, build_engine, image_builder, image_prune
from ansible.module_utils.llmfleet.build_host import BuildHost, build_context
from ansible.module_utils.llmfleet.cuda_wheels import WheelStore
from ansible.module_utils.llmfleet.host_edge import JobLog, exclusive, find_program, read_text
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF, LABEL_STAGE, BuildRequest
from ansible.module_utils.llmfleet.image_source import DEFAULT_SOURCES, parse_sources
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.source_host import ca_bundle, https_opener, limited, make_fetcher, package_places
from ansible.module_utils.llmfleet.toolchain_choice import Places, make_toolchain
from helpers import docker

WORK = Path("/var/lib/llmfleet")
REQUEST = BuildRequest(
    ref=DEFAULT_REF,
    pins=(),
    cmake_flags=(),
    cpu_level="x86-64",
    variant="cuda",
    architectures=("90-real",),
    toolkits=("13.0.2",),
)
NOWHERE = {"ca_bundle": "", "pypi_index": "", "pypi_index_fallback": ""}
"""The module's parameters for fetching, left to what this host is set up with."""


class Builder:
    """``folder`` takes the log; sources and wheels are kept where the module keeps them."""

    def __init__(self, folder: Path) -> None:
        self.log = JobLog(folder / "build.log", 900)
        run = limited(600)
        self.engine = build_engine.look(run, find_program("docker"), "", "auto", lenient=False)
        self.host = BuildHost(
            docker=self.engine.docker,
            run=run,
            stream=self.log.stream,
            opener=https_opener(ca_bundle("")),
            work=WORK,
            log=self.log.path,
            info=self.engine.info,
            environment=os.environ,
        )
        self.fetcher = make_fetcher(NOWHERE, WORK / image_prune.SOURCES_FOLDER, 600)
        wheels = WheelStore(self.fetcher, lambda: package_places("", ""), WORK / image_prune.SOURCES_FOLDER / "cuda")
        self.places = Places(base_image.host_base(read_text("/etc/os-release")), (), wheels, cuda_images=())
        self.how = image_builder.Settings(self.engine.buildkit, self.engine.jobs(0), ca_bundle(""), {})

    @contextmanager
    def context(self, request: BuildRequest) -> t.Iterator[tuple[Path, Toolchain]]:
        """Give a filled build context and the toolchain; one build at a time runs on a host."""
        with exclusive(WORK), build_context(WORK) as context:
            rows = parse_sources(DEFAULT_SOURCES)
            image_builder.choose_source(self.host, self.fetcher, rows, request, context / "source")
            yield context, make_toolchain(self.host, request, self.places, context).toolchain

    def run(self, request: BuildRequest, edit: t.Callable[[str], str], paths: t.Sequence[str], into: Path) -> None:
        """Run the edited Dockerfile of ``request`` and copy the files ``paths`` of its last stage to ``into``."""
        image = f"llmfleet-test/cuda-parts:{'-'.join(request.architectures)}"
        with self.context(request) as (context, toolchain):
            assert toolchain.kind == "wheels"
            proxies, network = image_builder.write_context(self.host, request, toolchain, context, self.how)
            recipe = context / "Dockerfile"
            stage = "".join(f"COPY --from=made {path} /\n" for path in paths)
            recipe.write_text(f"{edit(recipe.read_text())}\nFROM scratch\n{stage}")
            secrets = sorted((context / "site").iterdir())
            argv = image_builder.build_command(
                self.engine.docker.executable, toolchain.base, self.how, proxies, network, secrets
            )
            legacy = self.how.buildkit == "none"
            switch = {"DOCKER_BUILDKIT": "0" if legacy else "1", "BUILDKIT_PROGRESS": "plain"}
            try:
                assert self.log.stream([*argv, "--tag", image, str(context)], switch) == 0, self.host.why()
            finally:
                if legacy:
                    docker("image", "prune", "--force", "--filter", f"label={LABEL_STAGE}=build")
        try:
            container = docker("create", image, "none").strip()
            try:
                docker("cp", f"{container}:/.", str(into))
            finally:
                docker("rm", container)
        finally:
            docker("rmi", image)

    def compile(self, request: BuildRequest, names: t.Sequence[str], into: Path) -> dict[str, Path]:
        """Compile files of ggml-cuda with our Dockerfile, cut off after that; return objects and ``build.ninja``."""
        objects = [f"ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/{name}.cu.o" for name in names]

        def cut(text: str) -> str:
            head = text.partition("COPY tools/gather.sh")[0]
            assert "--target llama-server" in head
            head = head.replace("--target llama-server", f"--target {' '.join(objects)}")
            return head.replace("FROM toolchain AS build", "FROM toolchain AS made")

        self.run(request, cut, [f"/build/{path}" for path in ("build.ninja", *objects)], into)
        return {"build.ninja": into / "build.ninja", **{name: into / f"{name}.cu.o" for name in names}}

    def stub(self, into: Path) -> Path:
        """Return the library that stands in for the driver's while linking."""
        self.run(
            REQUEST,
            lambda text: text.partition("FROM toolchain AS build")[0].replace("AS toolchain", "AS made"),
            ["/opt/llmfleet/stubs/libcuda.so.1"],
            into,
        )
        return into / "libcuda.so.1"
