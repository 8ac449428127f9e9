"""The slow path: commands that Python answers, one handler each, found by the command table's row.

A handler takes a :class:`~blockwire.target.commands.call.Call` and returns the plane's answer; it raises
:class:`~blockwire.target.commands.call.Refused` with sense data for everything it cannot do.
"""
