"""What runs workloads on a machine, behind one port (port.py)."""
