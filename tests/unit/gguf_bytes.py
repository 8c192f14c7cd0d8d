"""GGUF files byte by byte, also such as no program writes."""

from __future__ import annotations

import io
import struct

from ansible.module_utils.llmfleet import tiny_gguf

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10


def tiny() -> bytes:
    """Return a small real model."""
    stream = io.BytesIO()
    tiny_gguf.write(stream, layers=1, dim=32)
    return stream.getvalue()


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, layout: str, *values: object) -> bytes:
    return text(name) + struct.pack("<I", kind) + struct.pack("<" + layout, *values)


def word(name: str, value: str) -> bytes:
    return text(name) + struct.pack("<I", STRING) + text(value)


def number(name: str, value: int) -> bytes:
    return key(name, U32, "I", value)


def numbers(name: str, *values: int) -> bytes:
    return text(name) + struct.pack(f"<IIQ{len(values)}i", ARRAY, I32, len(values), *values)


def words(name: str, *values: str) -> bytes:
    return text(name) + struct.pack("<IIQ", ARRAY, STRING, len(values)) + b"".join(text(value) for value in values)


ARCHITECTURE = word("general.architecture", "llama")


def header(*keys: bytes, tensors: tuple[bytes, ...] = (), version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)


def tensor(shape: tuple[int, ...], kind: int, offset: int = 0, name: str = "t") -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def padded(data: bytes, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment)


def model(*keys: bytes, tensors: tuple[str, ...] = ("t",), architecture: str = "llama") -> bytes:
    """Return a whole file whose tensors are 32 F32 numbers each."""
    rows = tuple(tensor((32,), 0, 128 * place, name) for place, name in enumerate(tensors))
    named = (word("general.architecture", architecture),) if architecture else ()
    return padded(header(*named, *keys, tensors=rows)) + bytes(128 * len(rows))


def part(place: int, count: int, *tensors: str, announced: int = 0) -> bytes:
    """Return a part (from 0) of a model in ``count`` files, as llama.cpp's gguf-split writes it."""
    keys = [key("split.no", 2, "H", place), key("split.count", 2, "H", count)]
    if announced:
        keys.append(key("split.tensors.count", I32, "i", announced))
    return model(*keys, tensors=tensors, architecture="" if place else "llama")
