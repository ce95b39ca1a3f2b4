"""From messages to transactions in parts as `raw` carries them, with who wrote them as far as it is proven."""
