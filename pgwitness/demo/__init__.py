"""The demo: the whole system on this machine, on real servers, with people, services and agents at work."""
