"""kodo among agents: `koco mcp`, a bridge over stdio between an MCP host and nodes, on the user's own machine.

    options    what the user allowed          catalog, tools    flows as tools
    texts      text from elsewhere, marked    forms, files      inputs, flat forms; the folders of `--files`
    runs       launched, found, watched       launches, state   nothing starts twice; what hosts carry is sealed
    asking     a person answers locks         results, resources, tasks   how a run is told, its outputs
    bridge     what each tool does            host, server      an MCP host, and the package `mcp`

A run is never a child of the bridge: it outlives bridge, host and chat. Nothing here listens.
"""
