"""The tests. Packages all, so that two files may have the same name."""
