"""What every process needs to run: health over HTTP, logging, back-off, small files, refusals of a broker."""
