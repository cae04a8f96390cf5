"""The command line: one file a subcommand, each a thin shell over the library."""

from .quiet import silence_libraries

silence_libraries()  # before a command imports them
