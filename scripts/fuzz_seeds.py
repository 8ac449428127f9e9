#!/usr/bin/env python3
"""Seeds of the fuzz targets from the golden vectors: one input per vector and way to read it, into fuzz/corpus.

    scripts/fuzz_seeds.py        writes fuzz/corpus/<target>/vector-<name>; what is there already stays

The form of an input is that of fuzz/harness: two bytes of parameters, one of the connection, then operations.
Operation 15 of the target and 30 of the initiator take raw bytes from the peer: connection, length (below 128), bytes.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "vectors"
CORPUS = ROOT / "fuzz" / "corpus"

RAW = {"target": 15, "initiator": 30}


def block(text: str) -> bytes:
    """The bytes of a commented hexadecimal block."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


def vectors(name: str) -> dict[str, bytes]:
    """Name to the bytes on the wire, without digests."""
    found = {}
    for vector in tomllib.loads((VECTORS / name).read_text())["vector"]:
        bhs, ahs, data = (block(vector.get(part, "")) for part in ("bhs", "ahs", "data"))
        found[vector["name"]] = bhs + ahs + data + bytes(-len(data) % 4)
    return found


def pieces(stream: bytes, operation: int) -> bytes:
    """The stream as operations that take at most 127 bytes each."""
    parts = (stream[at : at + 127] for at in range(0, len(stream), 127))
    return b"".join(bytes([operation, 0, len(part)]) + part for part in parts)


def write(target: str, name: str, content: bytes) -> None:
    """One seed."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"vector-{name}").write_bytes(content)


def main() -> None:
    """Writes them all."""
    sent_by = {"target": vectors("pdu_requests.toml"), "initiator": vectors("pdu_responses.toml")}
    for target, streams in sent_by.items():
        for name, stream in streams.items():
            write(target, name, bytes([0, 0, 0]) + pieces(stream, RAW[target]))
            write("deframer", name, bytes([0, 7]) + stream)


if __name__ == "__main__":
    main()
