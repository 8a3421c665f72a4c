"""What must not be in a list, one rule a file. A filter names ids; it never judges quality."""
