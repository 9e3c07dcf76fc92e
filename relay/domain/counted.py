"""How a number of things is said to people."""


def counted(number: int, word: str) -> str:
    """Return a number and the name of what it counts; `word` is the name of one."""
    ending = "" if number == 1 else "es" if word.endswith(("sh", "x")) else "s"
    return f"{number} {word}{ending}"
