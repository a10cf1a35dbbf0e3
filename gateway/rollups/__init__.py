"""What deliveries came to over time, as values."""
