"""What a text of SQL says, by PostgreSQL's own parser: operations, relations, columns, bodies, words. Pure."""
