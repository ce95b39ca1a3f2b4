"""Who a client is: SCRAM ended at the gateway, and the login upstream that follows from it."""
