"""What this machine can do, what stands in the way, and what to type next."""
