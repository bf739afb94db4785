"""From files to pixels: readers, splits without leaks, the data index, and a stream of decoded batches."""
