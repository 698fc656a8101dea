"""Which model a call goes to: by rule, price, latency or quality."""
