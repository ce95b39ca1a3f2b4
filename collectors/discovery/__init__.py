"""Which columns look sensitive: rules over names, types and shares of values, and what asks a server for these."""
