"""The WAL collector: committed row changes, from pgoutput into `raw`.

`pgoutput` decodes, `plan` masks and encodes rows, `transaction` assembles parts, `slot` keeps the slot and its
history, `stream` speaks the replication protocol and `collector` runs it all.
"""
