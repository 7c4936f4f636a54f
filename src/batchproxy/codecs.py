"""How keys and values become bytes in a store, and codecs where the built-in ways do not do.

Bytes, text, what JSON has, and NumPy's arrays and scalars need no codec.
"""

from ._backing.codecs import Codec as Codec
from ._backing.codecs import MsgspecCodec as MsgspecCodec
from ._backing.codecs import PickleCodec as PickleCodec
from ._backing.codecs import PydanticCodec as PydanticCodec
from ._backing.codecs import UnreadableValue as UnreadableValue
from ._backing.codecs import loads as loads
from ._backing.digests import digests as digests

__all__ = [
    "Codec",
    "MsgspecCodec",
    "PickleCodec",
    "PydanticCodec",
    "UnreadableValue",
    "digests",
    "loads",
]

# As in the package itself: the name that users import, not the room it lives in.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
