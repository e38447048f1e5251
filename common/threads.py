"""How many threads compute on the CPU."""


def settle():
    pass
