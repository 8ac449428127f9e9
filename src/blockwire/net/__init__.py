"""The asyncio edges: portals, dialing, listening, and the injected runtime that control rooms use instead of the clock
and the socket module."""
