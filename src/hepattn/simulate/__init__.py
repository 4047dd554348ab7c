"""Events where no data is at hand, written in the field's own file formats."""
