"""The initiator: connect, sessions, logical units, queues and file objects.

`logical_unit`, `session` and `queue` hold the asynchronous classes (`blockwire.aio`); `blocking` and `blocking_queue`
the synchronous faces of the same things, whose data calls run on the caller's own thread.
"""
