"""The laboratory: what measures weights, methods and scans."""
