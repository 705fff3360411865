"""The pure core: functions without I/O on NumPy arrays, with NumPy and SciPy only."""
