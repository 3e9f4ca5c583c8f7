"""A user's mistakes: errors whose text is for the person at the shell."""

LONGEST_REASON = 200  # characters


class UserError(Exception):
    """Something the person at the shell can mend. The text says what is wrong, in which file, and what to do."""


def reason_of(error: BaseException) -> str:
    """What another library's error says, on one line and not too long."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if len(reason) < LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
