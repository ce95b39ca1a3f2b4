"""Behaviour: the habits of principals and their peers, and the models that say how unusual something is."""
