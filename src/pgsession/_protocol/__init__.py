"""Decides, and does no I/O: what an event, a proof, an answer of the database mean, and what is asked of it."""
