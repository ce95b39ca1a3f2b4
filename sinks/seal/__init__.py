"""The seal of a lake: a transparency log of its entries, signed by a process of its own, and what checks it."""
