"""What the commands do, as functions: a source, a pipeline or tracker, and sinks."""
