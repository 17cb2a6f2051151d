"""The model: a multimodal LLM, a chain, a segmenter. Importing this registers it with Auto classes."""

from transformers import AutoConfig, AutoModel

from cores.modeling.configuration import CoresConfig
from cores.modeling.model import CoresModel, CoresOutput

__all__ = ["CoresConfig", "CoresModel", "CoresOutput"]

AutoConfig.register("cores", CoresConfig, exist_ok=True)
AutoModel.register(CoresConfig, CoresModel, exist_ok=True)
