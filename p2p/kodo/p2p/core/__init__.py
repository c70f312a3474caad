"""The pure half of p2p: bytes and `now` in; bytes, events and deadlines out. No I/O, clock or randomness."""
