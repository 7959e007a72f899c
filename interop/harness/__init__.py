"""What the tests share: relays as processes, network namespaces, examples of the specification."""
