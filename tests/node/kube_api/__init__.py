"""An API server for tests that behaves as Kubernetes documents: a process of its own, HTTPS, its own CA.

server.py answers, objects.py keeps, fields.py merges (server-side apply), cluster.py makes pods and has them
run or fail, certificates.py makes the CA, double.py is what a test holds. A workload's image says how it
behaves (cluster.BEHAVIOURS).
"""
