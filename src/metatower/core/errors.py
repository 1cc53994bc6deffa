"""Errors that are the user's to mend: one clear sentence, no traceback on the command line."""


class UserError(ValueError):
    """Something outside the library is not as it must be; the message says what, and what to try."""
