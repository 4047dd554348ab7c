"""Jets: files to batches."""
