"""The I/O half of p2p: sockets, sessions, streams, calls and discovery on asyncio."""
