"""The servers that tests run on, and the tests of these servers."""
