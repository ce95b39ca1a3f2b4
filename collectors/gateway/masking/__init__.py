"""Lets an audience ask as it would ask the tables: names are rewritten to the views that mask, for comfort alone.

PostgreSQL enforces the masks (`collectors.masking`): an audience has no right on any table. A name that is not
rewritten here is an error of the server, never a leak.
"""
