"""What people see: HTML pages over the API. They are clients of it and know nothing that it does not tell."""
