"""Small images with layers of one's choice, made without a build: an archive in docker's format, loaded."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import tarfile
import typing as t


def layer(seed: int, size: int) -> bytes:
    """Return a layer with one file of ``size`` bytes that compresses to about half."""
    rng = random.Random(seed)
    content = b"".join(bytes([octet, 0]) for octet in rng.randbytes(size // 2))
    return _tar({f"file-{seed}": content})


def archive(reference: str, layers: t.Sequence[bytes], **settings: t.Any) -> bytes:
    """Return what ``docker load`` takes for an image of these layers."""
    digests = [hashlib.sha256(data).hexdigest() for data in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/none"], "Labels": {"made": "for a test"}, **settings},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": "test"} for _ in digests],
    }
    text = json.dumps(config).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    files = {f"{digest}/layer.tar": data for digest, data in zip(digests, layers)}
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": list(files)}]
    return _tar({**files, name: text, "manifest.json": json.dumps(manifest).encode()})


def load(reference: str, layers: t.Sequence[bytes], **settings: t.Any) -> None:
    """Give the engine an image."""
    done = subprocess.run(
        ["docker", "load"], input=archive(reference, layers, **settings), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _tar(files: t.Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return stream.getvalue()
