"""What the planes keep of the PDUs of a session, written down when something goes wrong with it."""

from blockwire.trace.dumps import Dumps

__all__ = ["Dumps"]
