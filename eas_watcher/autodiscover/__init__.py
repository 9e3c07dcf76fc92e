"""How the ActiveSync server of an address is found, at hosts that the operator named."""
