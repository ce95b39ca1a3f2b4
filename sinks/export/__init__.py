"""Taking evidence out of the lake for other programs: as events of OCSF, and as a table of Iceberg."""
