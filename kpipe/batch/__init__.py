"""Any number of photographs: what to read, who does it, and a journal so that nothing is lost."""


class BatchError(RuntimeError):
    """A job cannot begin or go on; the message is one line that says what to do."""
