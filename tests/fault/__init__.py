"""What was seen to go wrong on a real server: each has its test here, for both managers."""
