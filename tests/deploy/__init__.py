"""What can be checked of deploy/ without running containers or services: no Docker engine runs in the tests."""
