"""Jet generation with a variational autoencoder of hypergraphs."""
