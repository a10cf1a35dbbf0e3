"""What is known of event types, and what their data is held to."""
