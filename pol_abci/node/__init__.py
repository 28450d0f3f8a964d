"""One machine's node: the CometBFT binary, home folders, and the supervisor of its processes."""
