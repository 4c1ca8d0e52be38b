"""How fast fireworks is beside its peers: `make bench`; see benchmarks/README.md."""
