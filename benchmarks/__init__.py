"""A benchmark of Totoro against other servers on this machine: `make benchmark`, see README.md."""
