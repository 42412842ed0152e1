"""Load tests of fastmeta beside its peers, on one machine in one run. See README.md here for the method."""
