"""What a user may add from outside the package. `CONTRIBUTING.md` says how, and these tests hold it to its word."""
