"""Test suites of others, run directly and through the gateway: what differs is explained, or a finding."""
