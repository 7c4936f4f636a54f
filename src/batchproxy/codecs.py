"""How the values of a `Cache` are written to its store, where the built-in ways do not do.

Bytes, text, what JSON has, and NumPy's arrays and scalars need no codec.
"""

from ._codecs import Codec as Codec
from ._codecs import MsgspecCodec as MsgspecCodec
from ._codecs import PickleCodec as PickleCodec
from ._codecs import PydanticCodec as PydanticCodec
from ._codecs import UnreadableValue as UnreadableValue
from ._codecs import loads as loads

__all__ = [
    "Codec",
    "MsgspecCodec",
    "PickleCodec",
    "PydanticCodec",
    "UnreadableValue",
    "loads",
]

# As in the package itself: the name that users import, not the room it lives in.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
