"""The embedded stack: everything that the flow needs, on this machine, with no account."""
