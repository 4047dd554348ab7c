"""The five experiments, one folder each."""
