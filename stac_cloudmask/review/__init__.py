"""Look at masks: scores, reasons, pictures, reports."""
