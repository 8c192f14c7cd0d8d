"""The tiny model: the same bytes everywhere, small, fast, and made so that no prompt can change its answer."""

from __future__ import annotations

import hashlib
import io
import math
import time
from array import array

import pytest
from ansible.module_utils.llmfleet import gguf, tiny_gguf


def made(**options: int) -> bytes:
    stream = io.BytesIO()
    tiny_gguf.write(stream, **options)
    return stream.getvalue()


def test_the_file_is_the_one_that_its_digest_names() -> None:
    assert hashlib.sha256(made()).hexdigest() == tiny_gguf.SHA256


def test_it_is_small_and_quick() -> None:
    began = time.monotonic()
    data = made()
    assert time.monotonic() - began < 3
    assert len(data) < 1_000_000


@pytest.mark.parametrize("options", [{}, {"layers": 1, "dim": 32}, {"layers": 3, "dim": 96, "seed": 9}])
def test_it_is_a_whole_gguf(options: dict[str, int]) -> None:
    data = made(**options)
    header = gguf.read_header(io.BytesIO(data), len(data))
    assert header.needed_size == len(data)
    assert (header.architecture, header.context_length) == ("llama", 4096)
    assert header.block_count == options.get("layers", 2)


def test_seed_and_size_change_it() -> None:
    assert len({made(), made(seed=2), made(layers=1), made(dim=32)}) == 4


def test_the_sentence_is_readable_and_its_words_differ() -> None:
    words = tiny_gguf.ANSWER.split()
    assert len(set(words)) == len(words) >= 10


def test_no_prompt_can_spell_a_word_of_the_sentence() -> None:
    """SentencePiece joins two pieces at a time, so a token is reachable only when it splits into two tokens."""
    texts = [text for text, _ in tiny_gguf.vocabulary()]
    assert len(set(texts)) == len(texts)
    count = len(tiny_gguf.ANSWER.split())
    sentence, others = texts[-count:], set(texts[:-count])
    assert "".join(sentence).replace("\u2581", " ") == tiny_gguf.ANSWER
    for word in sentence:
        assert not any(word[:cut] in others and word[cut:] in others for cut in range(1, len(word)))


def test_each_token_leads_to_its_successor_by_a_wide_margin() -> None:
    """Without the layers in between, which a real engine adds: the margin must leave room for them."""
    dim = 64
    tokens = [text for text, _ in tiny_gguf.vocabulary()]
    values = array("f", made()[-4 * dim * len(tokens) :])
    output = [values[dim * row : dim * (row + 1)] for row in range(len(tokens))]
    count = len(tiny_gguf.ANSWER.split())
    first = len(tokens) - count
    end_of_turn = tokens.index("<|im_end|>")
    for axis, successor in enumerate([*range(first, first + count), end_of_turn]):
        logits = [row[axis] * math.sqrt(dim) for row in output]
        best = logits.pop(successor)
        assert best - max(logits) > 50
