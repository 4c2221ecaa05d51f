"""What a person types: `ods COMMAND`. A module a command, each with `main(argv) -> exit status`."""
