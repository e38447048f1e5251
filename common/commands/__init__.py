"""The commands of ``python -m common``: each module is one, and its one public function what it runs."""
