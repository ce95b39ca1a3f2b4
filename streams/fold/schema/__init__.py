"""What is known of a schema: names of relations, what functions run and views read, what commands do to them."""
