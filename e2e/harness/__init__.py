"""What the end-to-end stage is built from: its tools, its processes, its reports. Standard library only."""
