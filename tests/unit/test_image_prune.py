"""Which older images go, which stay, and the record of pulled ones."""

from __future__ import annotations

import os

import pytest
from ansible.module_utils.llmfleet import image_prune as prune
from ansible.module_utils.llmfleet import pulled_images

CPU, CUDA = ("cpu", "server"), ("cuda", "server")


def built(day: int, variant: str = "cpu", contents: str = "server", *more: str) -> dict:
    kind = variant if contents == "server" else f"{variant}-{contents}"
    labels = {"io.llmfleet.variant": variant, "io.llmfleet.contents": contents}
    return {
        "id": f"sha256:{variant}{contents}{day}",
        "references": [f"llmfleet/llama.cpp:{kind}-{day:012x}", *more],
        "created": f"2026-11-{day:02}T00:00:00Z",
        "labels": labels,
    }


def published(day: int, name: str) -> dict:
    return {"id": f"sha256:p{day}", "references": [name], "created": f"2026-11-{day:02}T00:00:00Z", "labels": {}}


def name(day: int) -> str:
    return f"llmfleet/llama.cpp:cpu-{day:012x}"


def gone(images, chosen, wanted=CPU, keep=1, pulled=None):
    return [names for image in prune.older(images, chosen, wanted, keep, pulled or {}) for names in image.names]


@pytest.mark.parametrize(("keep", "left"), [(0, [3, 2, 1]), (1, [2, 1]), (2, [1]), (3, []), (9, [])])
def test_the_newest_older_ones_stay_for_a_roll_back(keep, left):
    images = [built(day) for day in (2, 4, 1, 3)]
    assert gone(images, name(4), keep=keep) == [name(day) for day in left]


def test_the_chosen_image_is_never_old_even_when_it_is_the_oldest():
    images = [built(day) for day in (1, 2, 3)]
    assert gone(images, name(1), keep=1) == [name(2)]


def test_other_variants_other_contents_and_other_peoples_images_are_left_alone():
    images = [
        built(1, "cuda"),
        built(2, "cpu", "full"),
        {**built(3), "references": ["mine/llama.cpp:cpu-1"]},  # inherits our labels, and is not ours
        published(4, "ghcr.io/ggml-org/llama.cpp:server-b1"),
        built(5),
        built(6),
    ]
    assert gone(images, name(6), keep=0) == [name(5)]
    assert gone(images, "x", ("cpu", "full"), keep=0) == ["llmfleet/llama.cpp:cpu-full-000000000002"]


def test_pulled_images_count_with_the_built_ones():
    first, second = (f"ghcr.io/ggml-org/llama.cpp:server-b{number}" for number in (1, 2))
    images = [published(1, first), published(2, second), built(3), built(4)]
    assert gone(images, name(4), keep=1, pulled={first: CPU, second: CPU}) == [second, first]
    assert gone(images, name(4), keep=1, pulled={first: CPU, second: CUDA}) == [first]
    assert gone(images, second, keep=0, pulled={first: CPU, second: CPU}) == [name(4), name(3), first]


def test_only_our_names_of_an_image_are_taken_away():
    images = [built(1, "cpu", "server", "mine/own:1"), built(2)]
    assert gone(images, name(2), keep=0) == [name(1)]


def test_an_image_of_the_first_releases_is_known_by_its_tag():
    images = [{**built(1), "labels": {"io.llmfleet.build-key": "1"}}, built(2)]
    assert gone(images, name(2), keep=0) == [name(1)]
    foreign = {**built(1), "labels": {}, "references": ["llmfleet/llama.cpp:own-name"]}
    assert gone([foreign, built(2)], name(2), keep=0) == []


# --- doing it


class Docker:
    """An engine of which some images are used and some cannot be removed."""

    def __init__(self, used: str = "", stuck: str = "") -> None:
        self.used, self.stuck, self.removed = used, stuck, []

    def text(self, *args):
        assert args[:3] == ("ps", "--all", "--filter")
        return "chat\nold-chat\n" if self.used and args[3] == f"ancestor={self.used}" else ""

    def attempt(self, *args):
        assert args[0] == "rmi"
        assert "--force" not in args
        if self.stuck in args:
            return 1, "", "Error response:\n conflict\n"
        self.removed += args[1:]
        return 0, "", ""


IMAGES = [prune.Image("sha256:1", (name(1),)), prune.Image("sha256:2", (name(2),))]


def test_a_pruned_image_takes_its_log_and_its_record_along(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    mine, other = logs / f"llama_cpp-{1:012x}.log", logs / f"llama_cpp-{9:012x}.log"
    mine.touch()
    other.touch()
    pulled_images.add(tmp_path, name(2), CPU)
    pulled_images.add(tmp_path, "r/other:1", CUDA)
    docker = Docker()
    assert prune.prune(docker, tmp_path, IMAGES, check_mode=False) == ([name(1), name(2)], {})
    assert docker.removed == [name(1), name(2)]
    assert (mine.exists(), other.exists()) == (False, True)
    assert pulled_images.read(tmp_path) == {"r/other:1": CUDA}


def test_what_a_container_uses_or_docker_holds_stays_with_the_reason(tmp_path):
    docker = Docker(used="sha256:1", stuck=name(2))
    pruned, stays = prune.prune(docker, tmp_path, IMAGES, check_mode=False)
    assert (pruned, docker.removed) == ([], [])
    assert stays == {name(1): ["chat", "old-chat"], name(2): ["Error response: conflict"]}


def test_check_mode_tells_the_same_and_removes_nothing(tmp_path):
    docker = Docker(used="sha256:1")
    assert prune.prune(docker, tmp_path, IMAGES, check_mode=True) == ([name(2)], {name(1): ["chat", "old-chat"]})
    assert docker.removed == []
    assert not list(tmp_path.iterdir())


def test_source_archives_used_last_stay(tmp_path):
    folder = tmp_path / prune.SOURCES_FOLDER
    folder.mkdir(parents=True)
    for age, file in enumerate(["git-a.tar", "sdist-b.tar.gz", "archive-c.tar.gz", "git-d.tar", "git-e.tar.part"]):
        (folder / file).touch()
        os.utime(folder / file, (1000 - age, 1000 - age))
    (folder / "llama.cpp.git").mkdir()
    assert prune.prune_sources(tmp_path, 1) == [str(folder / "archive-c.tar.gz"), str(folder / "git-d.tar")]
    assert sorted(path.name for path in folder.iterdir()) == [
        "git-a.tar",
        "git-e.tar.part",
        "llama.cpp.git",
        "sdist-b.tar.gz",
    ]
    assert prune.prune_sources(tmp_path, 1) == []


def test_the_record_of_a_time_with_one_variant_is_read(tmp_path):
    assert pulled_images.read(tmp_path) == {}
    record = tmp_path / pulled_images.PULLED_RECORD
    record.parent.mkdir(parents=True)
    record.write_text("r/a:1\n\nr/a:1\n")
    pulled_images.add(tmp_path, "r/b:1", CUDA)
    pulled_images.add(tmp_path, "r/b:1", CUDA)
    assert pulled_images.read(tmp_path) == {"r/a:1": CPU, "r/b:1": CUDA}
    assert len(record.read_text().splitlines()) == 4
    pulled_images.forget(tmp_path, ["r/none:1"])
    pulled_images.forget(tmp_path, ["r/a:1"])
    assert record.read_text() == "r/b:1 cuda server\n"
