"""Every golden vector both ways: the bytes decode to the fields, the fields encode to the bytes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from blockwire import wire
from blockwire.wire import keys
from blockwire.wire.crc32c import crc32c, digest

VECTORS = Path(__file__).resolve().parents[2] / "vectors"


def load(name: str) -> list[dict[str, Any]]:
    return tomllib.loads((VECTORS / name).read_text())["vector"]


def block(text: str) -> bytes:
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


def class_of(pdu: str) -> type[wire.Pdu]:
    by_name = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower(): cls for cls in wire.PDU_CLASSES.values()}
    return by_name[pdu]


PDUS = [*load("pdu_requests.toml"), *load("pdu_responses.toml")]


def test_every_opcode_has_a_vector() -> None:
    assert {class_of(vector["pdu"]) for vector in PDUS} == set(wire.PDU_CLASSES.values())


@pytest.mark.parametrize("vector", PDUS, ids=lambda vector: vector["name"])
def test_pdu(vector: dict[str, Any]) -> None:
    cls = class_of(vector["pdu"])
    bhs, ahs, data = (block(vector.get(part, "")) for part in ("bhs", "ahs", "data"))
    byte_fields = {"lun", "isid", "cdb"}
    expected = {k: bytes.fromhex(v) if k in byte_fields else v for k, v in vector["fields"].items()}

    for field in fields(cls):  # type: ignore[arg-type]
        if isinstance(field.default, bool):
            expected.setdefault(field.name, False)  # README.md: a flag that is not listed is false

    decoded = wire.decode(bhs, ahs, data)

    assert type(decoded) is cls
    assert decoded == cls(**expected, data=data)
    assert decoded.encode().hex(" ", 4) == bhs.hex(" ", 4)
    assert decoded.ahs == ahs
    padded = data + bytes(-len(data) % 4)
    assert decoded.to_bytes() == bhs + ahs + padded


@pytest.mark.parametrize("vector", load("crc32c.toml"), ids=lambda vector: vector["name"])
def test_crc32c(vector: dict[str, Any]) -> None:
    data = block(vector["data"]) if "data" in vector else bytes([vector["fill"]]) * vector["length"]
    assert digest(data).hex() == vector["digest"]
    assert crc32c(data[7:], crc32c(data[:7])) == crc32c(data)


@pytest.mark.parametrize("vector", load("text_keys.toml"), ids=lambda vector: vector["name"])
def test_text_keys(vector: dict[str, Any]) -> None:
    pairs = [tuple(pair.split("=", 1)) for pair in vector["pairs"]]
    assert keys.split_pairs(block(vector["block"])) == pairs
    assert keys.join_pairs(pairs) == block(vector["block"])  # type: ignore[arg-type]
