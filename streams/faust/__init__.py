"""The only room that knows Faust: two agents that hand records over, its transport, and the process around them."""
