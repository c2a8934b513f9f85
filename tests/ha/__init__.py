"""Three members of Patroni that lose their leader in every way, under the load and the judge of chaos: `make ha`."""
