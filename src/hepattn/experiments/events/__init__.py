"""Events: classification and density ratios of collider events."""
