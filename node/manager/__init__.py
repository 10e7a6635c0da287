"""The manager: one process per machine that keeps its workloads as desired and beats for them."""
