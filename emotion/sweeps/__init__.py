"""Many runs from one command: which there are, what each does, what came of them, and a search among them."""
