"""One session between a client and its server, as a pure state machine: bytes in, bytes and records out."""
