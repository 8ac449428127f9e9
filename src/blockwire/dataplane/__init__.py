"""The boundary between the control plane (Python) and the data plane (Rust).

Nothing outside this package imports the native module. Control rooms see `api.DataPlane` only, so
that a pure-Python fake (`fake.py`) or a plane in another process can take its place.
"""
