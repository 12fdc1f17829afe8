"""What happens to a command and its files where the process, the disk or the machine fails."""
