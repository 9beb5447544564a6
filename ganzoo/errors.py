"""Errors that are the user's to mend: one sentence, no traceback."""


class UserError(Exception):
    """What was given, what is allowed, what to do, in one sentence. The command line prints it and exits with 2."""


class TrainingError(UserError):
    """A run that had to stop (a loss that is not finite, no memory, no disk): the sentence says what is kept."""
