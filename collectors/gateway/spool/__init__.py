"""What the gateway says of sessions and statements: on this disk first, from there into the topic `raw`."""
