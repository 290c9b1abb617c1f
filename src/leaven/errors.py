"""What is the common root of everything Leaven refuses?"""


class LeavenError(Exception):
    """Something Leaven refused or could not do; its text says what was wrong, where, and what to do.

    The constructor takes the facts as arguments and keeps them as `args`, so an error survives pickling
    between processes.
    """


class BadDefinition(LeavenError, ValueError):
    """A value of the loop file (or of a request for work) is not one that Leaven can run."""

    def __init__(self, where: str, what: str, mend: str) -> None:
        super().__init__(where, what, mend)
        self.where, self.what, self.mend = where, what, mend

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.mend}"
