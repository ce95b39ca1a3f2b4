"""One suite a contract of `pgwitness.core.contracts`: every registered implementation passes it, on real servers."""
