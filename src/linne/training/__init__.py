"""Recipe in, bundle out."""
