"""Floor 7: the user's side: arguments, printing, progress and exit codes of every command."""
