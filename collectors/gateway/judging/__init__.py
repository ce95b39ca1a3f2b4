"""What the gateway decides on a statement, and by what: policies, identities, and what stands behind names."""
