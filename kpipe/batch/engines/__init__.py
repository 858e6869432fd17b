"""What processes the photographs of a job: this machine, or a Ray cluster."""
