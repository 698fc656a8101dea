"""Where models are pulled from, one module per source."""
