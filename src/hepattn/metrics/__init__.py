"""What physicists quote, as numbers with uncertainties."""
