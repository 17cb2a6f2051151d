"""Between samples and tensors: pictures and words in, answers back to words. Knows sizes and tokens, no weights.

Importing this registers the processor with AutoProcessor, by the config of the model that it goes with.
"""

from transformers import AutoProcessor

from cores.modeling.configuration import CoresConfig
from cores.processing.pixels import Picture, open_picture
from cores.processing.processor import CoresProcessor
from cores.processing.reading import Reading
from cores.processing.stored import ProcessorSizes
from cores.processing.tokens import add_tokens

__all__ = ["CoresProcessor", "Picture", "ProcessorSizes", "Reading", "add_tokens", "open_picture"]

AutoProcessor.register(CoresConfig, CoresProcessor, exist_ok=True)
