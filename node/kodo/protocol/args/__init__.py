"""What each op takes: one model an op, by the modules of `kodo.node.answers`. `kodo.protocol.calls` lists the ops."""
