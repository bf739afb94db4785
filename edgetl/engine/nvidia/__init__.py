"""TensorRT of every generation: one builder, one runner, one table of differences."""
