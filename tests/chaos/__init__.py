"""What is lost and what is doubled when processes are killed and servers restarted: nothing."""
