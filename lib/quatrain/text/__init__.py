"""Text and model folders without torch: tokenizer, chat template, checks of a model folder.

tokenizer = Tokenizer.load(folder)
ids = tokenizer.encode_prompt([{"role": "user", "content": "Hello"}])
"""

from quatrain.text.chat_template import SIMPLE_TEMPLATE, Messages
from quatrain.text.model_folder import ModelFacts, check_model_folder
from quatrain.text.tokenizer import Tokenizer

__all__ = ["SIMPLE_TEMPLATE", "Messages", "ModelFacts", "Tokenizer", "check_model_folder"]
