"""Jobs of any number of photographs: sources, engines, and a journal from which a job resumes."""
