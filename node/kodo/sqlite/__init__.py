"""One SQLite file, well kept: how it is opened and brought up to date, written by one thread, and read beside it.

The node's event log, the memories of flows and the registry are such files. What stands in them is theirs; nothing
here knows of nodes, flows or registries.

    file      `DatabaseFile`: what a file of one kind is, and how connections to it are opened
    script    statements of a script, one by one, inside of a transaction
    faults    what SQLite refused, and why
    writer    `GroupWriter`: all that waits goes into one transaction
    readers   `Readers`: threads that read, each read from one moment's state
    copy      a copy of a file that is in use
"""
