"""Stream processing: the only room that knows Faust; thin agents over pure functions."""
