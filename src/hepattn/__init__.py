"""Attention models for high-energy physics."""
