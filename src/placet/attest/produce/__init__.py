"""Ask the hardware, or what stands in for it, to quote a context."""
