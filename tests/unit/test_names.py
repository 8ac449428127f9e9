"""Names, portals, URLs, LUNs and sizes."""

from __future__ import annotations

import pytest

from blockwire.errors import UsageError
from blockwire.names import (
    Isid,
    Portal,
    Url,
    decode_lun,
    encode_lun,
    format_rate,
    format_size,
    iscsi_name,
    parse_size,
    parse_target_address,
)

IQN = "iqn.2024-01.com.example:disk1"


@pytest.mark.parametrize(
    ("name", "prepared"),
    [
        # RFC 7143 sections 4.2.7.4 to 4.2.7.6 and 13.4.
        ("iqn.2001-04.com.example:storage:diskarrays-sn-a8675309", None),
        ("iqn.2001-04.com.example", None),
        ("eui.02004567A425678D", "eui.02004567a425678d"),
        ("naa.52004567BA64678D", "naa.52004567ba64678d"),
        ("naa.62004567BA64678D0123456789ABCDEF", "naa.62004567ba64678d0123456789abcdef"),
        ("IQN.2024-01.com.Example:Disk", "iqn.2024-01.com.example:disk"),
        ("iqn.2024-01.com.example:kühl", None),
    ],
)
def test_names(name: str, prepared: str | None) -> None:
    assert iscsi_name(name) == (prepared or name)


@pytest.mark.parametrize(
    "name",
    ["", "disk", "iqn.", "iqn.2024-13.com.example", "iqn.24-01.com.example", "iqn.2024-01.com.example:a b",
     "iqn.2024-01.com.example:a_b", "eui.123", "naa.123", "iqn.2024-01.com.example:" + "a" * 200,
     "iqn.2024-01.com.example:a\0b", "iqn.2024-01.com.example:"],
)  # fmt: skip
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        iscsi_name(name)
    assert caught.value.evidence


def test_isid_layout() -> None:
    # RFC 7143 section 11.12.5: T in the first two bits, then A (6), B (16), C (8), D (16).
    isid = Isid.from_random(0x123456, 7)
    assert bytes(isid).hex() == "801234560007"
    assert (isid.t, isid.a, isid.b, isid.c, isid.d) == (2, 0, 0x1234, 0x56, 7)
    assert bytes(Isid.from_enterprise(0x00ABCD, 1)).hex() == "4000abcd0001"
    assert bytes(Isid.from_oui(0x00023D, 0x010203)).hex() == "00023d010203"
    assert Isid.parse("0x801234560007") == Isid.from_bytes(bytes(isid)) == isid
    assert isid.with_qualifier(9).d == 9


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1", "127.0.0.1", 3260, "127.0.0.1:3260"),
        ("host:0", "host", 0, "host:0"),
        ("[::1]", "::1", 3260, "[::1]:3260"),
        ("[fe80::1%eth0]:3261", "fe80::1%eth0", 3261, "[fe80::1%eth0]:3261"),
        ("::1", "::1", 3260, "[::1]:3260"),
    ],
)
def test_portals(text: str, host: str, port: int, shown: str) -> None:
    portal = Portal.parse(text)
    assert (portal.host, portal.port, str(portal)) == (host, port, shown)


@pytest.mark.parametrize(
    "text", ["", ":3260", "h:", "h:99999", "h:x", "[::1", "[::1]x", "[h]:1", "a b", "1::2::3", "a,b"]
)
def test_bad_portals(text: str) -> None:
    with pytest.raises(UsageError):
        Portal.parse(text)


@pytest.mark.parametrize(
    ("text", "portal", "tag"),
    [
        # RFC 7143 section 13.8.
        ("10.0.0.1:5003,1", "10.0.0.1:5003", 1),
        ("[1080:0:0:0:8:800:200C:417A],65", "[1080:0:0:0:8:800:200C:417A]:3260", 65),
        ("[1080::8:800:200C:417A]:5003,1", "[1080::8:800:200C:417A]:5003", 1),
        ("computingcenter.example.com,23", "computingcenter.example.com:3260", 23),
        ("10.0.0.1", "10.0.0.1:3260", None),
    ],
)
def test_target_addresses(text: str, portal: str, tag: int | None) -> None:
    parsed, parsed_tag = parse_target_address(text)
    assert (str(parsed), parsed_tag) == (portal, tag)
    assert parse_target_address(parsed.target_address(tag)) == (parsed, tag)


@pytest.mark.parametrize("text", ["", ",1", "h,x", "h,70000", "h:p,1"])
def test_bad_target_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_target_address(text)


def test_url_in_full() -> None:
    url = Url.parse(
        f"iscsi://joe%se/c@r?t%41@[::1]:3261/{IQN}/3?header_digest=crc32c&target_user=bob&target_password=pw&MaxBurstLength=5"
    )
    assert (url.user, url.secret) == ("joe", "se/c@r?t%41")  # split at the first %, never decoded
    assert (url.mutual_user, url.mutual_secret) == ("bob", "pw")
    assert (str(url.portal), url.target, url.lun) == ("[::1]:3261", IQN, 3)
    assert dict(url.keys) == {"HeaderDigest": "CRC32C", "MaxBurstLength": "5"}
    shown = f"{url} {url!r}"
    assert "se/c" not in shown
    assert "pw" not in shown


@pytest.mark.parametrize(
    ("text", "target", "lun"),
    [
        ("h", "", None),
        ("h:3260/", "", None),
        (f"h/{IQN}", IQN, None),
        (f"iscsi://h/{IQN}/", IQN, None),
        (f"h/{IQN}/0", IQN, 0),
    ],
)
def test_url_depths(text: str, target: str, lun: int | None) -> None:
    url = Url.parse(text)
    assert (url.target, url.lun) == (target, lun)
    assert Url.parse(str(url)) == url


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("iser://h", "usage.scheme-reserved"),
        ("iscsis://h", "usage.scheme-reserved"),
        ("http://h", "usage.url"),
        (f"a,b/{IQN}", "usage.several-hosts"),
        ("h/disk", "usage.name"),
        (f"h/{IQN}/x", "usage.lun"),
        (f"h/{IQN}/0/1", "usage.url"),
        (f"h/{IQN}/0?x", "usage.url"),
        (f"h/{IQN}/0?colour=red", "usage.url"),
        (f"h/{IQN}/0?iser", "usage.scheme-reserved"),
        ("", "usage.portal"),
    ],
)
def test_bad_urls(text: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        Url.parse(text)
    assert caught.value.code == code
    assert caught.value.next


@pytest.mark.parametrize(
    ("lun", "field"),
    [
        (0, "0000000000000000"),
        (255, "00ff000000000000"),
        (256, "4100000000000000"),
        (16383, "7fff000000000000"),
        (16384, "d200400000000000"),
    ],
)
def test_luns(lun: int, field: str) -> None:
    assert encode_lun(lun).hex() == field
    assert decode_lun(bytes.fromhex(field)) == lun


@pytest.mark.parametrize("field", ["0100000000000000", "0001000100000000", "8000000000000000", "4001000000000001"])
def test_luns_of_other_levels(field: str) -> None:
    assert decode_lun(bytes.fromhex(field)) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1K", 1024),
        ("10G", 10 << 30),
        ("1.5M", 3 << 19),
        ("2KiB", 2048),
        ("10MB", 10**7),
        ("1tb", 10**12),
        ("7 G", 7 << 30),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1X", "-1", "1.3", "0x10"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_sizes_out() -> None:
    assert format_size(10 << 30) == "10 GiB (10737418240 bytes)"
    assert format_size(512) == "512 bytes"
    assert format_rate(123_400_000) == "123.4 MB/s"


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "a" * 64 + ".example.com", "a." * 127 + "com", "."])
def test_hosts_that_no_resolver_takes(host: str) -> None:
    # RFC 1035 2.3.4: labels of 1 to 63 octets, 255 in all. Python's resolver raises UnicodeError for others.
    with pytest.raises(UsageError):
        Portal.parse(host)
    with pytest.raises(ValueError, match="portal"):
        parse_target_address(f"{host}:3260,1")


def test_a_host_with_its_root_label() -> None:
    assert Portal.parse("example.com.:3261") == Portal("example.com.", 3261)


@pytest.mark.parametrize(
    "text",
    [
        "iscsi://joe%hunter2hunter2/iqn.2024-01.com.example:disk/0",
        "joe%hunter2hunter2",
        "iscsi://host/iqn.2024-01.com.example:disk/0?target_user=x&target_password=first&hunter2hunter2",
    ],
)
def test_a_url_with_a_slip_in_it_does_not_show_its_secret(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Url.parse(text)
    assert "hunter2" not in str(caught.value) + caught.value.evidence + caught.value.next


@pytest.mark.parametrize(
    "text", ["fe80::1%eth0", "[fe80::1%eth0]:3260", "iscsi://[fe80::1%eth0]/iqn.2024-01.com.example:d/0"]
)
def test_an_ipv6_scope_is_no_secret(text: str) -> None:
    assert Url.parse(text).portal == Portal("fe80::1%eth0")
