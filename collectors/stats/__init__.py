"""Collector of query statistics: what ran, by which role, how often, from pg_stat_statements."""
