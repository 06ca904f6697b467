"""The one exception that means: the input is at fault, not the program."""


class UserError(Exception):
    """Something given is missing or wrong; the message says what was found, what was expected and what to do.

    Entry points print the message alone, without a traceback, and exit with status 2.
    """
