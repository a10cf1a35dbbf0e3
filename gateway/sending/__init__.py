"""Who sends what is owed: this process alone, several that share it, or none here."""
