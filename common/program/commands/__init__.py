"""The commands of ``python -m common``. Each module is one command, with one public function that runs it."""
