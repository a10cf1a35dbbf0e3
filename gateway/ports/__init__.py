"""What each part needs of the others, as promises. Adapters stand in storage/ and bus/."""
