"""Text exchanges of the full feature phase (RFC 7143 sections 6.4, 11.10 and 11.11), both roles, without I/O.

These machines work on PDUs, not on bytes: who carries the PDUs fills in CmdSN, ExpStatSN, StatSN and MaxCmdSN.
"""

from __future__ import annotations

from blockwire.text.initiator import TextDone, TextFailed, TextInitiator
from blockwire.text.limits import TextLimits
from blockwire.text.target import TextReply, TextTarget

__all__ = ["TextDone", "TextFailed", "TextInitiator", "TextLimits", "TextReply", "TextTarget"]
