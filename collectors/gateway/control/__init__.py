"""What a gateway answers on its own machine: which sessions there are, and that one is to end."""
