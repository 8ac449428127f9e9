"""Role-neutral SCSI: what both an initiator and a target must know of SPC-4, SBC-3 and SAM-5.

Nothing here does I/O, keeps time or knows which role it serves. Each module is one kind of data:

* ``commands``: the literal command table (one row per operation code and service action)
* ``cdb``: command descriptor blocks, built and parsed
* ``sense``, ``status``: how a command ends
* ``inquiry``, ``vpd``, ``mode``, ``capacity``, ``luns``, ``unmap``, ``supported``, ``target_ports``,
  ``log_pages``: parameter data, built and parsed
* ``identity``: names of a logical unit that are stable across restarts

Parsers take bytes from the other side and raise :class:`blockwire.scsi.layout.MalformedScsiData`
when they are short or contradict themselves; they never read past what was given.
"""
