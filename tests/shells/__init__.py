"""The real shells, from the manager down to psycopg, on a scripted server: random histories on a virtual clock."""
