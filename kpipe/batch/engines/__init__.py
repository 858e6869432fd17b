"""Who does the photographs of a job: processes on this machine, or a Ray cluster."""
