"""What logical messages say: beacons, DDL, announcements, and the keys that prove them."""
