"""TLS 1.3 between peers that prove what they are before anything else is said."""
