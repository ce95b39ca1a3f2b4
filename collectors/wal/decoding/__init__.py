"""From the bytes of pgoutput to masked rows: its messages, the plan of each table, values; pure."""
