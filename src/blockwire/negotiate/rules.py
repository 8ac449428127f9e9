"""Cross-key rules: what two results must not be together, and which key gives way.

In every row the key that gives way has the result function Minimum, so that lowering it is an admissible answer to
any offer (6.2.2). Rules are applied when all values are there (6.2: "after all the parameters are available").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from blockwire.negotiate.parameters import Parameters


@dataclass(frozen=True, slots=True)
class Rule:
    """While ``broken`` holds, ``key`` has to come down to ``limit``."""

    section: str
    key: str
    field: str
    broken: Callable[[Parameters], bool]
    limit: Callable[[Parameters], int]
    why: str


RULES: Final = (
    Rule(
        "13.2, 13.21", "MaxConnections", "max_connections",
        lambda p: p.session_type == "Discovery" and p.max_connections > 1,
        lambda p: 1,
        "a discovery session has one connection",
    ),
    Rule(
        "7.4.1", "ErrorRecoveryLevel", "error_recovery_level",
        lambda p: p.session_type == "Discovery" and p.error_recovery_level > 0,
        lambda p: 0,
        "a discovery session recovers nothing",
    ),
    Rule(
        "13.14", "FirstBurstLength", "first_burst_length",
        lambda p: p.first_burst_length > p.max_burst_length,
        lambda p: p.max_burst_length,
        "FirstBurstLength MUST NOT exceed MaxBurstLength",
    ),
    Rule(
        "13.19", "MaxOutstandingR2T", "max_outstanding_r2t",
        lambda p: p.error_recovery_level > 0 and p.data_sequence_in_order and p.max_outstanding_r2t > 1,
        lambda p: 1,
        "above ErrorRecoveryLevel 0 with DataSequenceInOrder=Yes only the last R2T may be retried",
    ),
)  # fmt: skip


def broken_rules(parameters: Parameters) -> list[Rule]:
    """The rules that ``parameters`` break."""
    return [rule for rule in RULES if rule.broken(parameters)]


def settle(parameters: Parameters) -> Parameters:
    """``parameters`` with every key that has to give way lowered."""
    for rule in RULES:
        if rule.broken(parameters):
            parameters = parameters.changed(**{rule.field: rule.limit(parameters)})
    return parameters


def first_burst_irrelevant(parameters: Parameters) -> bool:
    """13.14: without unsolicited data FirstBurstLength means nothing."""
    return parameters.initial_r2t and not parameters.immediate_data
