"""The embedded stack: everything the flows need, on this machine, without an account."""
