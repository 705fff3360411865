"""The pure core: values in, values out; numpy and scipy only."""
