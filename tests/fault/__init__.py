"""What was seen to go wrong on a real server, by design/coherence.md: each has its test here, for both managers."""
