"""The wire between CometBFT and the application: framing, socket server, generated messages."""
