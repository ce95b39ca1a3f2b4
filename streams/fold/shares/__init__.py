"""How much of a relation a transaction took away or wrote over, and what is known of relations for that. Pure."""
