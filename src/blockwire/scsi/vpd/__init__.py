"""Vital product data pages (SPC-4 7.8, SBC-3 6.6): each page is a frozen dataclass that encodes and parses itself.

``device_identification`` is page 83h with its designators, ``identification`` pages 00h, 80h and 86h, ``block``
pages B0h, B1h and B2h. :mod:`blockwire.scsi.vpd.page` has the four-byte head that all share.
"""
