"""What the exchangeable parts of pgwitness promise: a collector, a detector, an evidence writer, an alert target.

Each is a protocol of few methods whose docstrings say what blocks, what may raise and what is durable when it returns.
What there is stands in a registry beside the implementations; `tests/contract_suites` holds each to its promise.
"""
