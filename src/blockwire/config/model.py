"""The configuration value itself: targets, their logical units and stores, portals, who may log in.

Every field is checked on construction. Sizes accept ``10G`` and are kept in bytes. What only the operating system can
answer (does the file exist, is the port free) is asked when the target starts.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from blockwire.config.authentication import AuthenticationConfig
from blockwire.config.store_words import STORE_OPTIONS, bytes_of, parse_filter, parse_store, truth
from blockwire.errors import ConfigurationError
from blockwire.names import Portal, iscsi_name
from blockwire.negotiate.preferences import Preferences

SCHEMA = "blockwire.config/1"

MAX_LUNS = 16384
"""LUNs 0 to 16383 fit peripheral and flat addressing (SAM-5 4.7)."""

_Size = Annotated[int, BeforeValidator(lambda value: bytes_of(value, "size") if isinstance(value, str) else value)]


_Rate = Annotated[int, BeforeValidator(lambda value: bytes_of(value, "rate") if isinstance(value, str) else value)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


def _printable(text: str, length: int, what: str) -> str:
    if not text.isascii() or not text.isprintable() or not 0 < len(text) <= length:
        raise ValueError(f"{what} {text!r} is not 1 to {length} printable ASCII characters")
    return text


class FilterConfig(_Model):
    """One filter on a store."""

    name: str
    """`check`, `delay`, `fault` or `readonly`."""
    options: dict[str, str] = {}
    """The filter's parameters, as text."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        if isinstance(value, str):
            word = parse_filter(value)
            return {"name": word.name, "options": word.options}
        return value

    @model_validator(mode="after")
    def _known(self) -> Self:
        text = self.name + (
            ":" + ",".join(f"{key}={value}" for key, value in self.options.items()) if self.options else ""
        )
        parse_filter(text)
        return self


class StoreConfig(_Model):
    """Where the bytes of a logical unit are. May be written as one word (`ram:1G?serial=A1`)."""

    scheme: Literal["ram", "file", "null"]
    """Kind of store; a block device is a `file`."""
    path: str = ""
    """Path of the file or block device; empty for `ram` and `null`."""
    size: _Size | None = Field(default=None, gt=0, lt=1 << 63)
    """Bytes. `ram` and `null` need it. A file that is missing is created with it; one that exists has to match it."""
    options: dict[str, str] = {}
    """Options of this kind of store: `ram` file; `file` io, threads, direct."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.scheme == "file" and not self.path:
            raise ValueError("a file store needs a path")
        if self.scheme != "file" and self.path:
            raise ValueError(f"a {self.scheme} store has no path")
        if self.scheme != "file" and self.size is None:
            raise ValueError(f"a {self.scheme} store needs a size")
        unknown = sorted(set(self.options) - set(STORE_OPTIONS[self.scheme]))
        if unknown:
            raise ValueError(f"a {self.scheme} store has no option {unknown[0]!r}")
        return self

    def describe(self) -> str:
        """For people: the path, or the scheme."""
        return self.path or self.options.get("file", "") or f"{self.scheme}:{self.size}"


class LunConfig(_Model):
    """One logical unit of a target."""

    lun: int = Field(ge=0, lt=MAX_LUNS)
    """The number initiators see."""
    store: StoreConfig
    """Where its bytes are."""
    filters: tuple[FilterConfig, ...] = ()
    """Filters on the store, the one next to the store first."""
    read_only: bool = False
    """Refuse every write with WRITE PROTECTED."""
    block_size: Literal[512, 4096] = 512
    """Bytes of a logical block."""
    write_cache: bool = True
    """WCE: acknowledged writes may be volatile until SYNCHRONIZE CACHE. Off: each write is stable before its status."""
    serial: str | None = None
    """Unit serial number; without it one that is stable for this host and store."""
    vendor: str = "BLKWIRE"
    """T10 vendor identification, at most 8 characters."""
    product: str = "Blockwire disk"
    """Product identification, at most 16 characters."""
    revision: str | None = None
    """Product revision level, at most 4 characters; without it the version of Blockwire."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        """A store written as one word brings options of the logical unit in its query."""
        if not isinstance(value, dict) or not isinstance(value.get("store"), str):
            return value
        word = parse_store(value["store"])
        unit = dict(word.unit_options)
        size = unit.pop("size", None)
        store: dict[str, Any] = {"scheme": word.scheme, "path": word.path, "options": word.store_options}
        store["size"] = word.size if size is None else bytes_of(size, value["store"])
        merged: dict[str, Any] = {**value, "store": store}
        for key, text in unit.items():
            if key == "read_only":
                merged[key] = truth(text, "read_only") or bool(value.get("read_only"))
            elif key == "block_size":
                merged[key] = bytes_of(text, "block_size")
            else:
                merged[key] = text
        return merged

    @field_validator("vendor")
    @classmethod
    def _vendor(cls, text: str) -> str:
        return _printable(text, 8, "vendor")

    @field_validator("product")
    @classmethod
    def _product(cls, text: str) -> str:
        return _printable(text, 16, "product")

    @field_validator("revision")
    @classmethod
    def _revision(cls, text: str | None) -> str | None:
        return None if text is None else _printable(text, 4, "revision")

    @field_validator("serial")
    @classmethod
    def _serial(cls, text: str | None) -> str | None:
        return None if text is None else _printable(text, 64, "serial")

    @model_validator(mode="after")
    def _whole_blocks(self) -> Self:
        size = self.store.size
        if size is not None and size % self.block_size:
            below = size // self.block_size * self.block_size
            raise ConfigurationError(
                f"a size of {size} bytes is no multiple of the {self.block_size}-byte blocks",
                evidence=f"LUN {self.lun}: {self.store.describe()}", code="configuration.size",
                next="use " + (f"{below} or " if below else "") + f"{below + self.block_size} bytes",
            )  # fmt: skip
        return self


def _rule(text: str) -> str:
    """An access rule in its normal form: an iSCSI name, or a network in CIDR notation."""
    if text[:4].lower() in ("iqn.", "eui.", "naa."):
        return iscsi_name(text)
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"{text!r} is neither an initiator name (iqn.…) nor a network (10.0.0.0/8)") from None


class RedirectConfig(_Model):
    """Where initiators are sent instead of being served (RFC 7143 11.13.5, status 0101 or 0102)."""

    address: str
    """HOST:PORT."""
    permanent: bool = False
    """The target moved for good: initiators remember the address."""

    @field_validator("address")
    @classmethod
    def _address(cls, text: str) -> str:
        portal = Portal.parse(text)
        if portal.port == 0:
            raise ValueError(f"{text} is no address to be sent to: port 0 is no port to connect to")
        return str(portal)


class TargetConfig(_Model):
    """One target: its name, its logical units, who may log in, and what it negotiates."""

    name: str
    """iSCSI name."""
    luns: tuple[LunConfig, ...] = ()
    """Logical units, each number once; at least one, unless initiators are redirected."""
    allow: tuple[str, ...] = ()
    """Initiator names and networks that may log in; empty: everybody who can reach a portal."""
    keys: dict[str, str] = {}
    """RFC 7143 keys by name: the value this target offers or its bound, in place of the default."""
    authentication: AuthenticationConfig | None = None
    """CHAP accounts; without them nobody has to authenticate."""
    rate: _Rate = Field(default=0, ge=0)
    """Bytes per second that each session is sent at the most, over all its connections; 0: no limit."""
    redirect: RedirectConfig | None = None
    """Send every login to another address."""

    @field_validator("name")
    @classmethod
    def _name(cls, text: str) -> str:
        return iscsi_name(text)

    @field_validator("allow")
    @classmethod
    def _allow(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_rule(rule) for rule in rules))

    @field_validator("keys")
    @classmethod
    def _keys(cls, keys: dict[str, str]) -> dict[str, str]:
        try:
            Preferences.of("target", keys)  # an unknown key, or a value outside its bounds
        except ConfigurationError as error:
            error.evidence = error.evidence or " ".join(f"{name}={value}" for name, value in keys.items())
            raise
        return keys

    @model_validator(mode="after")
    def _once(self) -> Self:
        numbers = [unit.lun for unit in self.luns]
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        if twice:
            raise ValueError(f"LUN {twice[0]} is given twice")
        if not self.luns and self.redirect is None:
            raise ValueError(f"target {self.name} has no logical unit")
        return self


class Limits(_Model):
    """Bounds on what peers that have not logged in may cost, and on waiting."""

    half_open: int = Field(default=1024, ge=1)
    """Connections that may be in login at the same time; beyond it the oldest goes."""
    half_open_per_address: int = Field(default=256, ge=1)
    """The share of one peer address (an IPv6 /64) of them."""
    login_seconds: float = Field(default=15.0, gt=0)
    """Total time of one login."""
    login_pdus: int = Field(default=128, ge=4)
    """PDUs of one login."""
    login_text: _Size = Field(default=262144, ge=8192)
    """Bytes of text of one login."""
    sessions: int = Field(default=4096, ge=1)
    """Sessions at the same time, discovery included."""
    keep_alive_seconds: float = Field(default=30.0, ge=0)
    """Silence of a session after which a NOP-In asks for a sign of life; 0: never."""
    keep_alive_timeout: float = Field(default=30.0, gt=0)
    """How long the answer may take before the connection is given up."""
    drain_seconds: float = Field(default=3.0, ge=0)
    """How long shutting down waits for initiators to log out after being asked to."""


class Configuration(_Model):
    """Everything one `serve` process serves."""

    schema_: Literal["blockwire.config/1"] = Field(default="blockwire.config/1", alias="schema")
    """Version of this document's form."""
    portals: tuple[str, ...] = ("127.0.0.1:3260", "[::1]:3260")
    """Where to listen: HOST:PORT, port 0 takes a free one."""
    advertise: tuple[str, ...] = ()
    """What discovery answers in place of the portals (mapped ports, containers): HOST:PORT."""
    portal_group_tag: int = Field(default=1, ge=0, le=65535)
    """TargetPortalGroupTag of all portals (RFC 7143 13.9)."""
    targets: tuple[TargetConfig, ...] = Field(min_length=1)
    """The targets, each name once."""
    discovery: AuthenticationConfig | None = None
    """CHAP accounts of discovery sessions, which name no target; without them nobody has to authenticate."""
    limits: Limits = Limits()
    """Bounds."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, populate_by_name=True
    )

    @field_validator("portals")
    @classmethod
    def _portals(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not texts:
            raise ValueError("there is no portal to listen on")
        return tuple(dict.fromkeys(str(Portal.parse(text)) for text in texts))

    @field_validator("advertise")
    @classmethod
    def _advertise(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(str(Portal.parse(text)) for text in texts))
        for text in found:
            if Portal.parse(text).port == 0:
                raise ValueError(f"{text} cannot be advertised: port 0 is no port to connect to")
        return found

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [target.name for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"target {twice[0]} is given twice")
        return self

    @property
    def listen_on(self) -> tuple[Portal, ...]:
        """The portals, parsed."""
        return tuple(Portal.parse(text) for text in self.portals)

    @property
    def advertised(self) -> tuple[Portal, ...]:
        """The advertised addresses, parsed; empty: the portals themselves."""
        return tuple(Portal.parse(text) for text in self.advertise)

    def open_to_the_world(self) -> tuple[str, ...]:
        """Portals beyond the loopback interface, when some target lets everybody in: what `serve` warns of."""
        if all(
            target.allow or (target.authentication is not None and target.authentication.required)
            for target in self.targets
        ):
            return ()
        return tuple(str(portal) for portal in self.listen_on if not portal.is_loopback)
