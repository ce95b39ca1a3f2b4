"""What the collector asks the database: its tables then and now, its publications, its slot."""
