"""Who a session is: the rules of `identities.yaml`, tokens and comments, and how far each can be trusted."""
