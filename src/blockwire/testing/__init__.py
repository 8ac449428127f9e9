"""The public testing room: what one needs to test a program, a target, an initiator or a store against Blockwire.

`pytest_plugin`     the fixtures `blockwire_target` and `blockwire_target_factory`
`virtual_time`      an asyncio loop whose clock moves only when nothing else can
`virtual_network`   in-memory connections with faults, as a control room's runtime
`stepped_pair`      an initiator and a target, each on its own stepped plane, under one virtual clock
`fault_proxy`       a TCP proxy that cuts, stalls, damages, throttles and holds traffic back, on real sockets
`store_suite`       the conformance suite of stores

Importing this package loads none of them.
"""
