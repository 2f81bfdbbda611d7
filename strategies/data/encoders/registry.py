"""The registered encoders of images, by the name in a study's `features`.

>>> ENCODERS.names
('texture',)
"""

from configs.kinds import Registry
from configs.schema.records import ENCODER_KEYS, EncoderKeys
from strategies.data.encoders.base import Encoder
from strategies.data.encoders.texture import TEXTURE

ENCODERS: Registry[Encoder] = Registry("encoder", ("encode",), [TEXTURE])


def register(encoder: Encoder, keys: EncoderKeys | None = None) -> None:
    """Add an encoder, so that studies may name it; that of a study kit, `kit/name`, needs no keys.

    Raises:
        KindError: another one has its name, it lacks a part, or its keys have another name.
    """
    if keys is None:
        ENCODERS.register(encoder)
    else:
        ENCODERS.register_with(encoder, keys, ENCODER_KEYS)
