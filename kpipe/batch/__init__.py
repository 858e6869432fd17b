"""Any number of photographs: what to read, who does it, and a journal so that nothing is lost."""
