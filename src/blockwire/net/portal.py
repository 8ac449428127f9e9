"""A portal's address: `HOST:PORT`, `[IPv6]:PORT` or a bare host with port 3260 (RFC 7143 section 4.2.7.1, IANA)."""

from __future__ import annotations

from dataclasses import dataclass

ISCSI_PORT = 3260


@dataclass(frozen=True, slots=True, order=True)
class Portal:
    """Address and TCP port of a network portal. `host` is a name or a numeric address, without brackets."""

    host: str
    port: int = ISCSI_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int = ISCSI_PORT) -> Portal:
        """Reads `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.

        Raises ValueError that names what is wrong.
        """
        given = text
        text = text.strip()
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket:
                raise ValueError(f"portal {given!r}: the bracket of the IPv6 address is not closed")
            if rest and not rest.startswith(":"):
                raise ValueError(f"portal {given!r}: expected ':PORT' after ']'")
            port_text = rest[1:] if rest else ""
            if rest == ":":
                raise ValueError(f"portal {given!r}: no port after ':'")
        elif text.count(":") > 1:
            host, port_text = text, ""
        else:
            host, colon, port_text = text.partition(":")
            if colon and not port_text:
                raise ValueError(f"portal {given!r}: no port after ':'")
        if not host:
            raise ValueError(f"portal {given!r}: no host")
        if any(c.isspace() or c in "/@,[]" for c in host):
            raise ValueError(f"portal {given!r}: {host!r} is not a host")
        if not port_text:
            return cls(host, default_port)
        if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
            raise ValueError(f"portal {given!r}: {port_text!r} is not a TCP port (0 to 65535)")
        return cls(host, int(port_text))
