"""Authentication (RFC 7143 sections 9.2 and 12.1): CHAP of both roles, accounts and secrets; no I/O, no randomness."""

from __future__ import annotations

from blockwire.auth.algorithms import ALGORITHMS, MD5_ONLY, PREFERRED
from blockwire.auth.chap import ChapInitiator, ChapTarget, OutstandingChallenges
from blockwire.auth.secrets import Account, InitiatorCredentials, Secret, SecretSource, TargetAuthentication

__all__ = [
    "ALGORITHMS",
    "MD5_ONLY",
    "PREFERRED",
    "Account",
    "ChapInitiator",
    "ChapTarget",
    "InitiatorCredentials",
    "OutstandingChallenges",
    "Secret",
    "SecretSource",
    "TargetAuthentication",
]
