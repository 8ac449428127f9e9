"""Negotiation of keys (RFC 7143 sections 6.2, 12 and 13): the table, the rules between keys, the engine."""

from __future__ import annotations

from blockwire.negotiate.engine import Negotiation, Received
from blockwire.negotiate.keys import KEYS, Function, Key, Use
from blockwire.negotiate.parameters import Parameters
from blockwire.negotiate.preferences import Preferences

__all__ = ["KEYS", "Function", "Key", "Negotiation", "Parameters", "Preferences", "Received", "Use"]
