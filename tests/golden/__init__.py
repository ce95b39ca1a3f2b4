"""What was recorded once of a whole system, and what decoders, fold, judge and lake made of it."""
