"""Find the ActiveSync server of an address, at hosts that the operator named."""
