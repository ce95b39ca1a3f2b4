"""Where the bytes of a log come from: files, the server over SQL, a topic of Kafka, standard input."""
