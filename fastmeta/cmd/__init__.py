"""Commands of ``fastmeta``.

Each is a module with ``SUMMARY``, one line for the help, and ``main(argv)``, which gets the arguments after
the command's name and returns the exit status. It raises FastmetaError for what its user can mend;
``cmd.main`` shows that as one line and exits with 1. Status 2 is for arguments that make no sense.
"""
