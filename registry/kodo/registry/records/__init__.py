"""What is signed: records of nodes, statements of registries, claims of people. Pure."""
