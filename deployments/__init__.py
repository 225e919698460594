"""Run the flows: the embedded stack, Docker, Kubernetes, AWS, and commands for operators."""
