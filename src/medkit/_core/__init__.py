"""What every layer stands on: argument checks, optional packages, deprecation."""
