"""What one side wants: the values it offers (initiator) or would have chosen itself (target)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from blockwire.errors import ConfigurationError
from blockwire.negotiate import rules
from blockwire.negotiate.keys import KEYS, KNOWN_VALUES, Function, Key, Role, Value
from blockwire.negotiate.parameters import Parameters

_COMMON: Final = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "MaxConnections": "1",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxRecvDataSegmentLength": "262144",
    "MaxBurstLength": "1048576",
    "FirstBurstLength": "262144",
    "DefaultTime2Wait": "2",
    "DefaultTime2Retain": "20",
    "MaxOutstandingR2T": "64",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "ErrorRecoveryLevel": "0",
}
DEFAULTS: Final[dict[str, dict[str, str]]] = {
    "initiator": {**_COMMON, "MaxOutstandingR2T": "8"},
    # A target prefers no digest but does one when asked; it never insists on order itself, the initiator's Yes does.
    # Connections and recovery are what the initiator asks for: the result is the lower of two numbers.
    "target": {
        **_COMMON,
        "HeaderDigest": "None,CRC32C",
        "DataDigest": "None,CRC32C",
        "DataSequenceInOrder": "No",
        "MaxConnections": "16",
        "ErrorRecoveryLevel": "2",
        "TaskReporting": "FastAbort,ResponseFence,RFC3720",
        "iSCSIProtocolLevel": "2",
    },
}
"""The values used for keys that nobody set."""

_OWN_FLAG: Final = {
    "InitiatorName": "--initiator-name",
    "TargetName": "--target-name",
    "AuthMethod": "--chap-user",
    "SessionType": "the command",
}


@dataclass(frozen=True, slots=True)
class Preferences:
    """Checked values of operational keys, by RFC name, as text."""

    values: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, role: Role, keys: Mapping[str, str] | None = None, limits: Mapping[str, int] | None = None) -> Self:
        """The defaults of ``role`` changed by what a user set, held below ``limits``.

        Args:
            keys: RFC key name -> value, as ``--key`` and URLs give them; ``X-`` keys are offered as they stand.
            limits: key name -> largest number that can be served (the data plane states it before negotiation).

        Raises:
            ConfigurationError: an unknown key, or a value outside its key's format and bounds.
        """
        keys = dict(keys or {})
        wanted = dict(DEFAULTS[role])
        for name, text in keys.items():
            wanted[name] = _checked(role, name, text)
        if role == "initiator" and wanted["ErrorRecoveryLevel"] != "0" and "DataSequenceInOrder" not in keys:
            # 13.19: with Yes only the last sequence could be asked for again.
            wanted["DataSequenceInOrder"] = "No"
        for name, limit in (limits or {}).items():
            if name in wanted and int(KEYS[name].parse(wanted[name])) > limit:
                wanted[name] = str(limit)
        if "FirstBurstLength" not in keys:
            wanted["FirstBurstLength"] = str(min(int(wanted["FirstBurstLength"], 0), int(wanted["MaxBurstLength"], 0)))
        result = cls(tuple(wanted.items()))
        return result._settled(keys) if role == "initiator" else result

    def _settled(self, keys: Mapping[str, str]) -> Self:
        """A copy whose offers can stand together: what nobody set gives way, what was set is an error."""
        offered = Parameters()
        for name, text in self.values:
            key = KEYS.get(name)
            if key is not None and key.field is not None and key.function is not Function.FIRST:
                offered = offered.changed(**{key.field: key.parse(text)})
        lowered: dict[str, str] = {}
        for rule in rules.broken_rules(offered):
            if rule.key in keys:
                raise ConfigurationError(
                    f"{rule.key}={keys[rule.key]} cannot be offered with the other keys",
                    code="configuration.key",
                    evidence=f"RFC 7143 section {rule.section}: {rule.why}",
                    next=f"{rule.key} can be {rule.limit(offered)} at most here",
                )
            lowered[rule.key] = str(rule.limit(offered))
        return self.with_keys(lowered)

    def get(self, name: str) -> str | None:
        """The text wanted for a key, or ``None``."""
        return dict(self.values).get(name)

    def value(self, key: Key) -> Value | None:
        """The value wanted for a key, or its default where nobody wants another."""
        text = self.get(key.name)
        return key.default if text is None else key.parse(text)

    def with_keys(self, keys: Mapping[str, str]) -> Self:
        """A copy with some keys set to other, already valid, values."""
        return type(self)(tuple({**dict(self.values), **keys}.items()))


def _checked(role: Role, name: str, text: str) -> str:
    if name.startswith("X-"):
        return text
    key = KEYS.get(name)
    if key is None:
        close = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.5)
        raise ConfigurationError(
            f"unknown key {name!r}",
            code="configuration.key",
            next=f"did you mean {close[0]}?" if close else "use a key of RFC 7143 section 13, such as MaxBurstLength",
        )
    if name in _OWN_FLAG:
        raise ConfigurationError(
            f"{name} is not set by a key", code="configuration.key", next=f"it is set by {_OWN_FLAG[name]}"
        )
    if key.function is Function.OBSOLETE:
        raise ConfigurationError(
            f"{name} is obsolete", code="configuration.key", evidence="RFC 7143 section 13.25", next="leave it out"
        )
    if key.field is None and name != "MaxRecvDataSegmentLength":
        raise ConfigurationError(
            f"{name} cannot be set", code="configuration.key", evidence=f"RFC 7143 section {key.section}",
            next="leave it out: the login sets it itself",
        )  # fmt: skip
    try:
        key.parse(text)
        known = KNOWN_VALUES.get(name)
        if known is not None:
            for item in text.split(","):
                if item not in known:
                    raise ValueError(f"{item!r} is not one of {', '.join(known)}")
        if name == "TaskReporting" and role == "initiator" and not {"RFC3720", "ResponseFence"} <= set(text.split(",")):
            raise ValueError("RFC3720 and ResponseFence have to be offered with it (13.23)")
    except ValueError as error:
        raise ConfigurationError(
            f"{name}={text} is not possible",
            code="configuration.key",
            evidence=str(error),
            next=f"see RFC 7143 section {key.section}",
        ) from None
    return text
