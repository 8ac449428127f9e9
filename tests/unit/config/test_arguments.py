from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blockwire.config import arguments, document, host
from blockwire.config.model import Configuration
from blockwire.errors import ConfigurationError


def build(*stores: str, **options: Any) -> Configuration:
    return arguments.build(stores, host="h", **options)


def test_stores_take_the_free_luns_in_order() -> None:
    units = build("ram:1M", "disk.img", luns=["1=null:2M", "7=ram:1M"]).targets[0].luns
    assert [(unit.lun, unit.store.scheme) for unit in units] == [(0, "ram"), (1, "null"), (2, "file"), (7, "ram")]


def test_a_query_describes_store_and_unit() -> None:
    unit = build("ram:1G?serial=A1&file=%2Ftmp%2Fx&block_size=4096&read_only&vendor=ACME").targets[0].luns[0]
    assert (unit.serial, unit.block_size, unit.read_only, unit.vendor) == ("A1", 4096, True, "ACME")
    assert unit.store.options == {"file": "/tmp/x"}
    assert unit.store.size == 1 << 30


def test_a_word_without_a_known_scheme_is_a_literal_path() -> None:
    for word in ("disk.img?serial=A1", "/dev/vdb", "a:b", "C:disk"):
        assert build(word).targets[0].luns[0].store.path == word


def test_size_creates_files_only() -> None:
    unit = build("file:disk.img?serial=A1&block_size=4096", size="10G").targets[0].luns[0]
    assert (unit.store.size, unit.serial, unit.block_size) == (10 << 30, "A1", 4096)
    with pytest.raises(ConfigurationError, match="--size does not go with"):
        build("ram:1G", size="10G")


def test_filters_keep_their_order() -> None:
    unit = build("ram:1M", filters=["check", "delay:read=1ms,write=2ms", "delay:5ms"]).targets[0].luns[0]
    assert [item.name for item in unit.filters] == ["check", "delay", "delay"]
    assert unit.filters[1].options == {"read": "1ms", "write": "2ms"}
    assert unit.filters[2].options == {"all": "5ms"}


def test_the_default_name_is_stable_and_tells_stores_apart() -> None:
    name = build("ram:1G").targets[0].name
    assert name == build("ram:1G").targets[0].name
    assert name != build("ram:2G").targets[0].name
    assert name != arguments.build(["ram:1G"], host="other").targets[0].name
    assert host.default_target_name("h", ["ram:1G"], "My_Host.example").startswith("iqn.2025-01.org.blockwire:my-host.")
    assert host.host_id() == host.host_id()


def test_allow_is_normalised() -> None:
    target = build("ram:1M", allow=["10.1.2.3/8", "IQN.2024-01.Com.Example:A", "::1", "192.168.0.7"]).targets[0]
    assert target.allow == ("10.0.0.0/8", "iqn.2024-01.com.example:a", "::1/128", "192.168.0.7/32")


def test_who_is_warned() -> None:
    assert build("ram:1M").open_to_the_world() == ()
    assert build("ram:1M", portals=["0.0.0.0:3260", "[::1]:0"]).open_to_the_world() == ("0.0.0.0:3260",)
    assert build("ram:1M", portals=["0.0.0.0"], allow=["10.0.0.0/8"]).open_to_the_world() == ()


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (["ram:"], {}, "ram: needs a size"),
        (["ram:x"], {}, "'x' is not a size"),
        (["file:"], {}, "file: needs a path"),
        ([""], {}, "a store is empty"),
        (["ram:1G?colour=red"], {}, "has no option 'colour'"),
        (["ram:1G?serial"], {}, "option 'serial' has no value"),
        (["ram:1G?serial=a&serial=b"], {}, "stands twice"),
        (["ram:1G?read_only=maybe"], {}, "neither yes nor no"),
        (["ram:1000"], {}, "1000 bytes is no multiple of the 512-byte blocks"),
        (["ram:1M?block_size=4096", "ram:1536?block_size=4096"], {}, "1536 bytes is no multiple of the 4096"),
        (["ram:1G"], {"block_size": 1000}, "1000 is not 512 or 4096"),
        (["rbd:pool/image"], {}, "planned"),
        (["ram:1G"], {"filters": ["cow:overlay=x"]}, "planned"),
        (["ram:1G"], {"filters": ["fog"]}, "there is no filter 'fog'"),
        (["ram:1G"], {"filters": ["delay:depth=1"]}, "has no option 'depth'"),
        (["ram:1G"], {"allow": ["somebody"]}, "neither an initiator name"),
        (["ram:1G"], {"target_name": "disk"}, "not an iSCSI name"),
        (["ram:1G"], {"portals": ["a:b:c"]}, "not a portal"),
        (["ram:1G"], {"portals": ["127.0.0.1:70000"]}, "not a portal"),
        (["ram:1G"], {"advertise": ["example.org:0"]}, "port 0 is no port"),
        (["ram:1G"], {"luns": ["x=ram:1G"]}, "is not LUN=STORE"),
        (["ram:1G"], {"luns": ["20000=ram:1G"]}, "less than 16384"),
        ([], {"luns": ["1=ram:1G", "1=ram:1G"]}, "LUN 1 is given twice"),
        ([], {}, "nothing to serve"),
        (["ram:1G"], {"keys": ["MaxBurstLength"]}, "is not NAME=VALUE"),
        (["ram:1G"], {"keys": ["MaxBurstLenght=1048576"]}, "MaxBurstLenght"),
        (["ram:1G"], {"keys": ["MaxBurstLength=12"]}, "MaxBurstLength"),
        (["ram:1G", "ram:1G"], {"serial": "A1"}, "one serial number for several LUNs"),
        (["ram:1G?serial=%01"], {}, "printable"),
        (["ram:1G?vendor=TOOLONGNAME"], {}, "vendor"),
    ],
)
def test_faults_are_one_line_with_evidence(words: list[str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(*words, **options)
    error = caught.value
    assert said in str(error)
    assert "\n" not in str(error)
    assert error.evidence
    assert error.next
    assert error.exit_code == 2


def test_documents_load_back_to_the_same_value(tmp_path: Path) -> None:
    value = build(
        "ram:1M?serial=A1", 'we"ird\\näme', luns=["5=null:1G"], keys=["MaxBurstLength=1048576"], allow=["10.0.0.0/8"],
        portals=["127.0.0.1:0"], advertise=["example.org:3260"], filters=["fault:op=write+flush,count=2"],
    )  # fmt: skip
    for name, text in (("c.toml", document.to_toml(value)), ("c.json", document.to_json(value))):
        path = tmp_path / name
        path.write_text(text)
        assert document.load(path) == value


def test_a_short_document_by_hand() -> None:
    value = document.parse(
        'targets = [{name = "iqn.2024-01.a:b", luns = [{lun = 0, store = "ram:1M?serial=S"}]}]', "x", toml=True
    )
    assert value.targets[0].luns[0].serial == "S"
    assert value.portals == ("127.0.0.1:3260", "[::1]:3260")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("targets = [", "no TOML"),
        ("", "'targets' is missing"),
        ('targets = [{name = "iqn.2024-01.a:b", luns = []}]', "no logical unit"),
        ('colour = "red"\ntargets = []', "colour"),
        (
            'schema = "blockwire.config/9"\ntargets = [{name="iqn.2024-01.a:b", luns=[{lun=0, store="ram:1M"}]}]',
            "schema",
        ),
        (
            'targets = [{name="iqn.2024-01.a:b", luns=[{lun=0, store={scheme="ram", size="1M", path="x"}}]}]',
            "has no path",
        ),
    ],
)
def test_documents_with_faults(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        document.parse(text, "file.toml", toml=True)
    assert "file.toml" in caught.value.evidence + str(caught.value)


def test_a_missing_document(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        document.load(tmp_path / "none.toml")


def test_rate_and_keep_alive() -> None:
    found = build("ram:1M", rate=1 << 20, keep_alive_interval=5.0)
    assert found.targets[0].rate == 1 << 20
    assert (found.limits.keep_alive_seconds, found.limits.keep_alive_timeout) == (5.0, 30.0)
    assert document.parse(document.to_toml(found), "x", toml=True) == found
    plain = build("ram:1M")
    assert (plain.targets[0].rate, plain.limits.keep_alive_seconds) == (0, 30.0)
    with pytest.raises(ConfigurationError, match="keep_alive_timeout"):
        build("ram:1M", keep_alive_timeout=0.0)
