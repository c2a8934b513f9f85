"""Distributed server-side sessions on PostgreSQL alone, read at the speed of a dictionary."""
