"""SendTargets (RFC 7143 appendix C): target records to text and back, and who may ask what."""

from __future__ import annotations

from blockwire.discovery.records import TargetRecord, TargetRecordAddress, format_records, parse_records
from blockwire.discovery.send_targets import answer, answering

__all__ = ["TargetRecord", "TargetRecordAddress", "answer", "answering", "format_records", "parse_records"]
