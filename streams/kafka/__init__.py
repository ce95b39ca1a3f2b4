"""The worker's ways into Kafka and out of it: topics, readers, emitter, checkpoints, dead letters; nothing of Faust."""
