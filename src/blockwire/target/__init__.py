"""The target role's control plane: portals, admission, login, logical units, nexuses, task management, slow commands.

`server` is the engine that owns everything; two of them in one process share nothing.
"""
