"""What a program does that uses the real openai package against a served model."""

from __future__ import annotations

import typing as t

import openai
import pytest

CHINESE = "请用中文回答:你好吗?"


def client(url: str, key: str = "") -> openai.OpenAI:
    """Return the client of ``url`` (without /v1)."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key or "none", timeout=120, max_retries=0)


def generates(url: str, key: str, name: str, expected: str, chinese: t.Mapping[str, t.Any] | None = None) -> None:
    """Use everything that a service with task generate has; ``chinese``: what makes it answer in Chinese."""
    with client(url, key) as server:
        assert name in [model.id for model in server.models.list()]
        messages: t.Any = [{"role": "user", "content": "Hello"}]
        chat = server.chat.completions.create(model=name, messages=messages, max_tokens=24)
        assert (chat.choices[0].message.content or "").startswith(expected)
        assert chat.usage is not None
        assert chat.usage.completion_tokens > 1

        stream = server.chat.completions.create(
            model=name, messages=messages, max_tokens=24, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces).startswith(expected)
        assert len([piece for piece in pieces if piece]) > 3
        assert chunks[-1].usage is not None

        assert server.completions.create(model=name, prompt="The sea is", max_tokens=8).choices[0].text
        assert server.responses.create(model=name, input="Hello", max_output_tokens=24).output_text.startswith(expected)
        asked: t.Any = [{"role": "user", "content": CHINESE}]
        if chinese:
            _speaks_chinese(server, name, asked, chinese)
        elif chat := server.chat.completions.create(model=name, messages=asked, max_tokens=8):
            assert chat.choices[0].message.content


def _speaks_chinese(server: openai.OpenAI, name: str, messages: t.Any, extra: t.Mapping[str, t.Any]) -> None:
    """Each character of a streamed Chinese reply arrives whole, though a token is a part of one."""
    stream = server.chat.completions.create(
        model=name, messages=messages, max_tokens=64, stream=True, extra_body=dict(extra)
    )
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces).strip() == "你好,世界!🙂"
    assert len(pieces) > 3, pieces
    assert not any("\ufffd" in piece for piece in pieces), pieces


def embeds(url: str, key: str, name: str) -> None:
    """Use a service with task embed."""
    with client(url, key) as server:
        found = server.embeddings.create(model=name, input=["Hello", CHINESE], encoding_format="float")
        first, second = (row.embedding for row in found.data)
        assert len(first) == len(second) > 8
        assert first != second


def is_closed(url: str, name: str) -> None:
    """Without the key nothing is answered."""
    with client(url, "wrong") as server, pytest.raises(openai.AuthenticationError):
        server.chat.completions.create(model=name, messages=[{"role": "user", "content": "Hello"}])
