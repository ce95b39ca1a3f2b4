"""The whole chain as an attacker and an honest program meet it: a real server, the fold, the packaged policies."""
