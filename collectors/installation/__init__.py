"""What `pgwitness db` puts into a source database, keeps there and takes out; `collectors.beacon` reads what it
says."""
