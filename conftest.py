"""For every test run, doctests included."""


def pytest_sessionstart(session):
    """Imports the package before any doctest does."""
    # Imported by name before any doctest collects a module of it by path: a module that exists twice has two classes of
    # the same name, which the type checks, memoised by name, would take for each other.
    import metatower  # noqa: F401
