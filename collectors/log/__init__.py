"""The server log collector: pure parsers and interpreter beside the shell that follows the files."""
