"""The mode pages of one logical unit: current and default values, what MODE SELECT may change."""

from __future__ import annotations

from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.mode import (
    CACHING,
    CACHING_PAGE,
    CONTROL,
    CONTROL_PAGE,
    ERROR_RECOVERY_PAGE,
    EXCEPTIONS_PAGE,
    INFORMATIONAL_EXCEPTIONS,
    PAGES,
    READ_WRITE_ERROR_RECOVERY,
    PageControl,
    split_pages,
)


class PageRefused(Exception):
    """A MODE SELECT list asks for what cannot be; ``byte`` is where in the parameter list."""

    def __init__(self, byte: int, bit: int | None = None) -> None:
        super().__init__(f"byte {byte}")
        self.byte = byte
        self.bit = bit


class ModePages:
    """Values of pages 01h, 08h, 0Ah and 1Ch. Nothing is saved: after a restart the configuration speaks again."""

    def __init__(self, *, write_cache: bool, cache_changeable: bool) -> None:
        self.default: dict[int, bytes] = {
            # AWRE and ARRE: there is nothing to reallocate, and no error that is silently recovered.
            READ_WRITE_ERROR_RECOVERY: ERROR_RECOVERY_PAGE.build(),
            CACHING: CACHING_PAGE.build(write_cache_enabled=int(write_cache)),
            # QAM 1: unrestricted reordering; tasks of other nexuses end without TASK ABORTED (TAS 0) until MODE SELECT.
            CONTROL: CONTROL_PAGE.build(queue_algorithm=1),
            INFORMATIONAL_EXCEPTIONS: EXCEPTIONS_PAGE.build(disable_exception_control=1),
        }
        self.changeable: dict[int, bytes] = {code: layout.mask() for code, layout in PAGES.items()}
        if not cache_changeable:
            self.changeable[CACHING] = CACHING_PAGE.build()
        self.current = dict(self.default)

    @property
    def write_cache(self) -> bool:
        """WCE."""
        return bool(CACHING_PAGE.get(self.current[CACHING], "write_cache_enabled"))

    @property
    def descriptor_sense(self) -> bool:
        """D_SENSE."""
        return bool(CONTROL_PAGE.get(self.current[CONTROL], "descriptor_sense"))

    @property
    def write_protected(self) -> bool:
        """SWP."""
        return bool(CONTROL_PAGE.get(self.current[CONTROL], "software_write_protect"))

    @property
    def task_aborted_status(self) -> bool:
        """TAS: tasks that another nexus ends get a TASK ABORTED status."""
        return bool(CONTROL_PAGE.get(self.current[CONTROL], "task_aborted_status"))

    def reset(self) -> None:
        """Back to the defaults (SPC-4 6.11: current values after a reset, none being saved)."""
        self.current = dict(self.default)

    def values(self, control: PageControl) -> dict[int, bytes]:
        """Pages for a PC field; nothing is kept for saved values."""
        if control == PageControl.CHANGEABLE:
            return dict(self.changeable)
        return dict(self.default if control == PageControl.DEFAULT else self.current)

    def select(self, raw: bytes, offset: int) -> bool:
        """Applies the pages of a MODE SELECT list, all or none; True when a current value changed.

        ``raw`` are the pages, ``offset`` their place in the parameter list. Raises PageRefused for a page that is not
        there, has another length, or differs in a field that cannot be changed, MalformedScsiData when cut short.
        """
        changed = dict(self.current)
        at = offset
        pages = split_pages(raw, whole=True)
        for page in pages:
            code = page[0] & 0x3F
            current = changed.get(code)
            if page[0] & 0x40 or current is None:
                raise PageRefused(at, 5)
            if len(page) != len(current):
                raise PageRefused(at + 1)
            mask = self.changeable[code]
            for index in range(2, len(page)):
                wrong = (page[index] ^ current[index]) & ~mask[index] & 0xFF
                if wrong:
                    raise PageRefused(at + index, wrong.bit_length() - 1)
            changed[code] = current[:2] + page[2:]
            at += len(page)
        different = changed != self.current
        self.current = changed
        return different


__all__ = ["MalformedScsiData", "ModePages", "PageRefused"]
