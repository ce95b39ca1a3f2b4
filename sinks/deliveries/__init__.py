"""Alert deliveries: from the topic `alerts` to where people and programs look, and the responder."""
