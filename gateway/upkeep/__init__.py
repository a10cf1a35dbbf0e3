"""What goes on beside: what deleted subscriptions leave behind, what is too old, what figures come to."""
