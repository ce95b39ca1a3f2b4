"""Reading the parse tree of a statement: what it does, to which relations and columns, by which functions."""
