"""Each version of `pgsession.schema` has a migration here."""
