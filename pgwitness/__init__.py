"""What every room of pgwitness shares: events, batches, topics, configuration, masking, errors and metrics.

Nothing in here opens a connection to Kafka or to a database, with one exception that lives at the top: the
command line (`pgwitness.cli`) and the demo it runs (`pgwitness.demo`) put the rooms together.
"""

__version__ = "0.1.0"
