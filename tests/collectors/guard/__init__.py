"""Tests of the guard in the database."""
