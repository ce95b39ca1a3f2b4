"""The twin test: PostgreSQL's own regression files on a server with pgwitness and on one without print the same."""
