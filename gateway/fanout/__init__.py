"""From each event to the deliveries that it owes."""
