"""HTTP servers, whose connections are bounded from the moment they are accepted; looking up the names of others."""
