"""The image's identity, flags and Dockerfile; the processor level; the choice between keep, pull and build."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from ansible.module_utils.llmfleet.build_log import first_error
from ansible.module_utils.llmfleet.cpu_level import architecture, cpu_features, cpu_level
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_choice import Choice, Published, acceptable, choose, keep
from ansible.module_utils.llmfleet.llama_image import (
    DEFAULT_REF,
    TOOLS,
    BuildRequest,
    check_request,
    dockerfile,
    jobs,
    published_tag,
)

GIT_PIN = (("kind", "git"),)
REQUEST = BuildRequest(
    ref=DEFAULT_REF,
    pins=(GIT_PIN,),
    cmake_flags=(),
    cpu_level="x86-64-v3",
    variant="cpu",
    architecture="amd64",
    base="debian:bookworm",
)


@pytest.mark.parametrize(
    "changed",
    [
        {"ref": "b1"},
        {"pins": (GIT_PIN, (("kind", "archive"), ("sha256", "0" * 64)))},
        {"cmake_flags": ("-DX=1",)},
        {"cpu_level": "x86-64-v2"},
        {"base": "debian:trixie"},
        {"targets": (*TOOLS, "llama-bench")},
    ],
)
def test_every_input_changes_the_key(changed):
    assert replace(REQUEST, **changed).key() != REQUEST.key()


def test_the_key_is_stable_and_in_the_tag():
    assert REQUEST.key() == replace(REQUEST).key()
    assert REQUEST.image() == f"llmfleet/llama.cpp:cpu-{REQUEST.key()}"
    assert re.fullmatch(r"[0-9a-f]{12}", REQUEST.key())


def test_a_users_flag_comes_last():
    assert replace(REQUEST, cmake_flags=("-DGGML_AVX2=OFF",)).flags()[-1] == "-DGGML_AVX2=OFF"


@pytest.mark.parametrize(
    ("ref", "number", "commit"), [(DEFAULT_REF, "0", "0c1e57098"), ("b9", "9", "b9"), ("main", "0", "main")]
)
def test_the_build_is_stamped_with_its_ref(ref, number, commit):
    flags = replace(REQUEST, ref=ref).flags()
    assert f"-DLLAMA_BUILD_NUMBER={number}" in flags
    assert f"-DLLAMA_BUILD_COMMIT={commit}" in flags


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"ref": "-x"}, "ref"),
        ({"ref": "a..b"}, "ref"),
        ({"ref": "a b"}, "ref"),
        ({"cmake_flags": ("GGML_X=1",)}, "cmake_flags"),
        ({"cmake_flags": ("-DX=1\nRUN evil",)}, "cmake_flags"),
        ({"targets": ("llama-cli",)}, "llama-server"),
        ({"targets": ("llama-server", "x; rm")}, "targets"),
    ],
)
def test_bad_requests_are_refused(changed, word):
    with pytest.raises(BadInput, match=word):
        check_request(replace(REQUEST, **changed))


def test_the_dockerfile_for_buildkit_mounts_caches_and_secrets():
    text = dockerfile(REQUEST, buildkit=True)
    assert "--mount=type=cache,id=llmfleet-ccache-cpu,target=/ccache" in text
    for name in ("apt.conf", "sources.list", "ca.crt"):
        assert f"--mount=type=secret,id={name}," in text
    assert "COPY site" not in text


def test_the_legacy_dockerfile_has_no_mounts_and_keeps_site_files_out_of_the_result():
    text = dockerfile(REQUEST, buildkit=False)
    assert "--mount" not in text
    final = text[text.index("FROM scratch") :]
    assert "COPY site /run/llmfleet" in text
    assert "site" not in final
    assert "COPY --from=build /out /" in final


@pytest.mark.parametrize("buildkit", [True, False])
def test_the_dockerfile_is_complete_and_old_builders_can_read_it(buildkit):
    text = dockerfile(replace(REQUEST, cmake_flags=("-DA=b c'd",)), buildkit)
    assert not re.search(r"@\w+@|<<|# ?syntax|COPY --link", text)
    assert "USER 10001:10001" in text
    assert 'ENTRYPOINT ["/app/llama-server"]' in text
    assert r"'-DA=b c'\''d'" in text
    assert "'-DCMAKE_INSTALL_RPATH=$ORIGIN'" in text
    assert text.index("apt-get install") < text.index("COPY source")


@pytest.mark.parametrize(
    ("arch", "flags", "level"),
    [
        ("amd64", "sse4_2 avx avx2 bmi2 fma f16c avx512f", "x86-64-v3"),
        ("amd64", "sse4_2 avx", "x86-64-v2"),
        ("amd64", "sse2", "x86-64"),
        ("arm64", "fp asimd asimddp asimdhp", "armv8.2-a"),
        ("arm64", "fp asimd", "armv8-a"),
    ],
)
def test_the_cpu_level_follows_the_flags(arch, flags, level):
    assert cpu_level("auto", arch, flags.split()).name == level


def test_a_named_level_is_taken_and_a_foreign_one_refused():
    assert "-DGGML_AVX2=OFF" in cpu_level("x86-64-v2", "amd64", []).flags
    with pytest.raises(BadInput, match="x86-64-v2 does not exist on arm64"):
        cpu_level("x86-64-v2", "arm64", [])


def test_only_flags_of_every_core_count():
    assert cpu_features("flags\t\t: a b c\nmodel: x\nflags\t\t: b c d\n") == {"b", "c"}
    assert cpu_features("Features\t: fp asimd\n") == {"fp", "asimd"}
    assert cpu_features("") == frozenset()


def test_architectures():
    assert architecture("aarch64") == "arm64"
    with pytest.raises(BadInput, match="riscv64"):
        architecture("riscv64")


@pytest.mark.parametrize(("cpus", "gib", "expected"), [(8, 64, 8), (64, 12, 8), (4, 1, 1), (1, 0, 1)])
def test_jobs_fit_into_memory(cpus, gib, expected):
    assert jobs(cpus, gib << 30) == expected


@pytest.mark.parametrize(
    ("ref", "arch", "tag"),
    [
        (DEFAULT_REF, "amd64", "server-b11206"),
        ("b12000", "arm64", "server-b12000"),
        ("main", "amd64", ""),
        ("b1", "s", ""),
    ],
)
def test_published_tags(ref, arch, tag):
    assert published_tag("cpu", ref, arch) == tag


PUBLISHED = Published(("one.example", "two.example"), "ggml-org/llama.cpp")
ONE, TWO = (f"{host}.example/ggml-org/llama.cpp:server-b11206" for host in ("one", "two"))


def test_what_is_there_is_kept_the_built_one_first():
    images = acceptable("auto", PUBLISHED, REQUEST)
    assert images == [REQUEST.image(), ONE, TWO]
    assert keep({ONE, REQUEST.image()}, images).image == REQUEST.image()
    assert keep({TWO}, images) == Choice("keep", TWO, keep({TWO}, images).why)
    assert keep({"other"}, images) is None


def test_pull_and_build_accept_only_their_own():
    assert acceptable("pull", PUBLISHED, REQUEST) == [ONE, TWO]
    assert acceptable("build", PUBLISHED, REQUEST) == [REQUEST.image()]


def test_the_first_registry_that_answers_is_pulled_from():
    choice, tried = choose("auto", PUBLISHED, REQUEST, lambda registry: "down" if registry == "one.example" else "")
    assert (choice.action, choice.image) == ("pull", TWO)
    assert tried == [{"candidate": ONE, "result": "down"}]


def test_without_a_registry_auto_builds_and_pull_fails_with_the_reasons():
    choice, _tried = choose("auto", PUBLISHED, REQUEST, lambda _registry: "down")
    assert (choice.action, choice.image) == ("build", REQUEST.image())
    assert "no registry" in choice.why
    with pytest.raises(BadInput, match=r"one\.example.*: down; .*two\.example"):
        choose("pull", PUBLISHED, REQUEST, lambda _registry: "down")


@pytest.mark.parametrize(
    ("changed", "why"), [({"cmake_flags": ("-DX=1",)}, "CMake flags"), ({"ref": "f" * 40}, "no published image")]
)
def test_no_registry_is_asked_when_the_published_image_cannot_fit(changed, why):
    def never(_registry):
        raise AssertionError("asked")

    choice, _tried = choose("auto", PUBLISHED, replace(REQUEST, **changed), never)
    assert choice.action == "build"
    assert why in choice.why
    with pytest.raises(BadInput, match=why):
        choose("pull", PUBLISHED, replace(REQUEST, **changed), never)


def test_a_digest_pins_the_pull():
    pinned = Published(("r.example",), "a/b", "t", "sha256:" + "0" * 64)
    assert pinned.references(REQUEST) == ["r.example/a/b@sha256:" + "0" * 64]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "#8 1.0 [1/3] Building\n#8 2.5 /src/a.cpp:3:5: error: 'x' was not declared\n#8 2.6 ninja: build stopped\n"
            "ERROR: failed to solve: process did not complete: exit code: 1\n",
            "/src/a.cpp:3:5: error: 'x' was not declared",
        ),
        (
            "#8 0.4 CMake Error at CMakeLists.txt:7 (message):\n#8 0.4   needs a\n#8 0.4   compiler\n#8 0.4 \n"
            "#8 0.4 \n#8 0.5 -- Configuring incomplete\n",
            "CMake Error at CMakeLists.txt:7 (message): needs a compiler",
        ),
        ("Reading package lists...\nE: Unable to locate package ccache\n", "E: Unable to locate package ccache"),
        (
            "fatal: not a git repository: x\nfatal: unable to access 'https://h/': TLS\n",
            "fatal: unable to access 'https://h/': TLS",
        ),
        ("#9 3.0 c++: fatal error: Killed signal terminated program cc1plus\n", "memory ran out"),
        ("write /x: no space left on device\n", "the disk is full"),
        ("/bin/sh: 1: cmake: not found\n", "/bin/sh: 1: cmake: not found"),
        ("#4 ERROR: executor failed running [/bin/sh -c false]: exit code: 1\n", "executor failed running"),
        ("just\nwords\n\n", "words"),
        ("", "the builder said nothing"),
    ],
)
def test_the_first_real_error_is_found(log, said):
    assert said in first_error(log.splitlines(keepends=True))
