"""GGUF models in several files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import gguf
from ansible.module_utils.llmfleet.errors import BadInput
from gguf_bytes import header as raw_header
from gguf_bytes import key, model, padded, part, tensor, tiny

THREE = [part(0, 3, "a", announced=4), part(1, 3, "b", "c"), part(2, 3, "d")]


def header(data: bytes) -> gguf.GgufHeader:
    return gguf.read_header(io.BytesIO(data), len(data))


def test_a_joined_header_has_the_tensors_of_all_parts() -> None:
    joined = gguf.join([header(data) for data in THREE])
    assert [tensor.name for tensor in joined.tensors] == ["a", "b", "c", "d"]
    assert (joined.tensor_count, joined.weight_count) == (4, 128)
    assert joined.needed_size == sum(map(len, THREE))
    assert (joined.architecture, joined.split_count) == ("llama", 3)


def test_a_model_in_one_file_stays_as_it_is() -> None:
    one = header(tiny())
    assert gguf.join([one]) is one


def test_the_size_is_unknown_when_that_of_a_part_is() -> None:
    keys = (key("split.no", 2, "H", 1), key("split.count", 2, "H", 2))
    odd = padded(raw_header(*keys, tensors=(tensor((32,), 99, 0, "b"),))) + bytes(64)
    assert gguf.join([header(part(0, 2, "a")), header(odd)]).needed_size == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (THREE[:2], "not the 3 parts of one model: they say 1 of 3, 2 of 3"),
        ([THREE[0], THREE[2], THREE[1]], "they say 1 of 3, 3 of 3, 2 of 3"),
        ([THREE[0], THREE[1], part(2, 4, "d")], "3 of 4"),
        ([THREE[0], THREE[1], THREE[1]], "they say 1 of 3, 2 of 3, 2 of 3"),
        ([model(), THREE[1]], "not the 1 parts"),
        ([THREE[1]], "the file is part 2 of a model in 3 files; name the first part"),
        ([THREE[0], THREE[1], part(2, 3, "d", "e")], "5 tensors together and the first says 4"),
        ([part(0, 2, "a"), part(1, 2, "a")], "parts of different models"),
    ],
    ids=["one missing", "wrong order", "another count", "one twice", "no part", "not the first", "more", "same names"],
)
def test_parts_that_do_not_belong_together_are_refused(parts: list[bytes], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        gguf.join([header(data) for data in parts])
    assert "\n" not in str(caught.value)


def test_names_of_parts() -> None:
    assert gguf.part_names("/m/a.gguf", 1) == ["/m/a.gguf"]
    assert gguf.part_names("a/Q8_0/x-00001-of-00003.gguf", 3) == [
        f"a/Q8_0/x-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("name", ["x.gguf", "x-00002-of-00003.gguf", "x-00001-of-00002.gguf", "x-00001-of-00003.bin"])
def test_a_first_part_by_another_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"when it is called \.\.\.-00001-of-00003\.gguf"):
        gguf.part_names(name, 3)


def test_reads_the_parts_from_the_disk(tmp_path: Path) -> None:
    paths = [tmp_path / f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for path, data in zip(paths, THREE):
        path.write_bytes(data)
    assert gguf.read_model([str(path) for path in paths]).tensor_count == 4
    paths[1].write_bytes(THREE[1][:-200])
    with pytest.raises(BadInput, match=r"part m-00002-of-00003\.gguf: the file is cut off"):
        gguf.read_model([str(path) for path in paths])
