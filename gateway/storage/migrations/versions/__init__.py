"""One file a version of the database, each bringing it from the one before."""
