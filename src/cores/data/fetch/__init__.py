"""Data sets from the network: the catalogue, downloads that resume, archives."""
