"""Who a session is: what activity, log and beacons have shown of it, and the attribution that follows. Pure."""
