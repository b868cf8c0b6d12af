"""The claims of arXiv 2605.10790, one file each; every file of this folder is imported and so registered."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
