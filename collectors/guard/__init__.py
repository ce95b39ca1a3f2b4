"""The guard: policies that SQL can express, as triggers that refuse in the database itself, whoever connects to it."""
