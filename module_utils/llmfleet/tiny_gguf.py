"""Write a small GGUF model that a real engine loads and that answers every prompt with one fixed sentence.

It is a true llama-architecture model: prompts are tokenized, attention and feed-forward layers are computed, tokens are
sampled. Only its weights are built instead of trained, so that it needs no download and its answer can be verified:

- each word of the sentence is one token with an axis of its own as embedding; the output row of the word after it lies
  on that axis with a logit far above all others, which holds at any usual temperature and seed;
- every other token (what a prompt is made of) has the first axis in common, whose output row is the first word;
- the layers in between are random and too weak to turn a vector from its axis.

The same bytes come out on every Python and machine: one `random.Random(seed).random()` stream and IEEE arithmetic.
"""

from __future__ import annotations

import math
import random
import struct
import sys
import typing as t
from array import array

ANSWER = "Hello from llmfleet: this tiny model answers, which proves that the whole path works."
"""What the model says to every prompt."""

SHA256 = "1c4b98961a951f4d4d55c5d0b0bc8008aec421844d9b92323af77d6f53774b2d"
"""Digest of the file that ``write`` makes with its defaults."""

CONTEXT_LENGTH = 4096

_WORDS = ANSWER.split()
_SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
_UNK, _BOS, _EOS, _IM_START, _IM_END = range(len(_SPECIAL))
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Prompts are spelled with pieces of at most two characters and no blank within, so no prompt can end in a word of the
# sentence (all longer) and start the answer in its middle.
_FRAGMENTS = (
    "al an ar as at be co ce ch de ea ed el en er es et ha he hi ho ic il in io is it la le li ll ly ma me ne nd "
    "ng no nt of ol om on or ou ra re ri ro rs se si sh st te th ti to tr ur us ut ve wa we"
)

_HEAD_SIZE = 16
_LOGIT = 60.0
_ALIGNMENT = 32
_TYPE_NORMAL, _TYPE_UNKNOWN, _TYPE_CONTROL, _TYPE_BYTE = 1, 2, 3, 6
_U32, _F32, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5


def vocabulary() -> list[tuple[str, int]]:
    """Return (text, type) of each token: special tokens, the 256 bytes, prompt pieces, the words of the sentence."""
    tokens = [(text, _TYPE_UNKNOWN if text == "<unk>" else _TYPE_CONTROL) for text in _SPECIAL]
    tokens += [(f"<0x{byte:02X}>", _TYPE_BYTE) for byte in range(256)]
    pieces = ["\u2581", *(chr(code) for code in range(33, 127)), *_FRAGMENTS.split()]
    sentence = [_WORDS[0], *("\u2581" + word for word in _WORDS[1:])]
    return tokens + [(text, _TYPE_NORMAL) for text in pieces + sentence]


def write(stream: t.BinaryIO, *, layers: int = 2, dim: int = 64, seed: int = 1) -> None:
    """Write the model to ``stream``; ``dim`` is a multiple of 32 and at least 32, larger values make larger models."""
    tokens = vocabulary()
    rows_of = list(tensors(len(tokens), layers, dim))
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(rows_of), 0))
    metadata = list(_metadata(tokens, layers, dim))
    out[16:24] = struct.pack("<Q", len(metadata))
    for key, kind, value in metadata:
        out += _string(key) + struct.pack("<I", kind) + value
    offset = 0
    for name, shape, _ in rows_of:
        # type 0 is F32; offsets count from the start of the aligned data section
        out += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        offset += _padded(4 * shape[0] * (shape[1] if len(shape) > 1 else 1))
    stream.write(out.ljust(_padded(len(out)), b"\0"))
    draw = random.Random(seed).random  # noqa: S311 -- reproducible weights, not secrets
    for _, _, rows in rows_of:
        written = sum(stream.write(_floats(row)) for row in rows(draw))
        stream.write(bytes(_padded(written) - written))


_Rows = t.Callable[[t.Callable[[], float]], t.Iterator["list[float]"]]
"""Makes the rows of a tensor from a source of random numbers in [0, 1)."""


def tensors(vocabulary_size: int, layers: int, dim: int) -> t.Iterator[tuple[str, tuple[int, ...], _Rows]]:
    """Yield name, shape (row length first, as ggml has it) and rows of each tensor."""
    kv_dim = dim // 2
    ffn = 2 * dim
    # together the layers add a vector of about a fifth of an embedding's length, at any width and depth
    weight = math.sqrt(0.6 / (math.sqrt(layers) * math.sqrt(dim) * dim))
    first_word = vocabulary_size - len(_WORDS)

    def norm(_: t.Callable[[], float]) -> t.Iterator[list[float]]:
        yield [1.0] * dim

    def matrix(columns: int, rows: int) -> tuple[tuple[int, ...], _Rows]:
        return (columns, rows), lambda draw: (_noise(draw, columns, weight) for _ in range(rows))

    def embeddings(draw: t.Callable[[], float]) -> t.Iterator[list[float]]:
        for token in range(vocabulary_size):
            row = _noise(draw, dim, 0.05 / math.sqrt(dim))
            row[max(0, token - first_word + 1)] += 1.0
            yield row

    def output(draw: t.Callable[[], float]) -> t.Iterator[list[float]]:
        # the last RMS norm gives every vector the length sqrt(dim)
        for token in range(vocabulary_size):
            row = _noise(draw, dim, 0.5 / math.sqrt(dim))
            if token >= first_word:
                row[token - first_word] += _LOGIT / math.sqrt(dim)
            elif token == _IM_END:
                row[len(_WORDS)] += _LOGIT / math.sqrt(dim)
            yield row

    yield "token_embd.weight", (dim, vocabulary_size), embeddings
    for number in range(layers):
        block = f"blk.{number}."
        yield block + "attn_norm.weight", (dim,), norm
        yield (block + "attn_q.weight", *matrix(dim, dim))
        yield (block + "attn_k.weight", *matrix(dim, kv_dim))
        yield (block + "attn_v.weight", *matrix(dim, kv_dim))
        yield (block + "attn_output.weight", *matrix(dim, dim))
        yield block + "ffn_norm.weight", (dim,), norm
        yield (block + "ffn_gate.weight", *matrix(dim, ffn))
        yield (block + "ffn_up.weight", *matrix(dim, ffn))
        yield (block + "ffn_down.weight", *matrix(ffn, dim))
    yield "output_norm.weight", (dim,), norm
    yield "output.weight", (dim, vocabulary_size), output


def _noise(draw: t.Callable[[], float], count: int, width: float) -> list[float]:
    return [(draw() * 2.0 - 1.0) * width for _ in range(count)]


def _metadata(tokens: list[tuple[str, int]], layers: int, dim: int) -> t.Iterator[tuple[str, int, bytes]]:
    """Yield key, value type and encoded value."""

    def number(key: str, value: int) -> tuple[str, int, bytes]:
        return key, _U32, struct.pack("<I", value)

    def text(key: str, value: str) -> tuple[str, int, bytes]:
        return key, _STRING, _string(value)

    def flag(key: str, value: bool) -> tuple[str, int, bytes]:
        return key, _BOOL, struct.pack("<?", value)

    def many(key: str, kind: int, values: list[bytes]) -> tuple[str, int, bytes]:
        return key, _ARRAY, struct.pack("<IQ", kind, len(values)) + b"".join(values)

    yield text("general.architecture", "llama")
    yield text("general.name", "llmfleet tiny")
    yield number("general.file_type", 0)
    yield number("llama.vocab_size", len(tokens))
    yield number("llama.context_length", CONTEXT_LENGTH)
    yield number("llama.embedding_length", dim)
    yield number("llama.block_count", layers)
    yield number("llama.feed_forward_length", 2 * dim)
    yield number("llama.attention.head_count", dim // _HEAD_SIZE)
    yield number("llama.attention.head_count_kv", dim // _HEAD_SIZE // 2)
    yield number("llama.rope.dimension_count", _HEAD_SIZE)
    yield "llama.attention.layer_norm_rms_epsilon", _F32, struct.pack("<f", 1e-5)
    yield text("tokenizer.ggml.model", "llama")
    yield text("tokenizer.ggml.pre", "default")
    yield many("tokenizer.ggml.tokens", _STRING, [_string(text) for text, _ in tokens])
    yield many("tokenizer.ggml.scores", _F32, [struct.pack("<f", -float(place)) for place in range(len(tokens))])
    yield many("tokenizer.ggml.token_type", _I32, [struct.pack("<i", kind) for _, kind in tokens])
    yield number("tokenizer.ggml.unknown_token_id", _UNK)
    yield number("tokenizer.ggml.bos_token_id", _BOS)
    yield number("tokenizer.ggml.eos_token_id", _EOS)
    yield number("tokenizer.ggml.eot_token_id", _IM_END)
    yield flag("tokenizer.ggml.add_bos_token", True)
    yield flag("tokenizer.ggml.add_eos_token", False)
    yield text("tokenizer.chat_template", CHAT_TEMPLATE)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _floats(values: list[float]) -> bytes:
    data = array("f", values)
    if sys.byteorder == "big":
        data.byteswap()
    return data.tobytes()


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
