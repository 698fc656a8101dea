"""The local server: every model behind the APIs that clients already speak."""
