"""SAM behind the chain's interface: encode an image once, decode any number of masks in one call.

Legend: images = pictures of the batch, masks = all masks of the batch on one flat axis, dim = width of prompts and
features, (h, w) = the feature grid, (H, W) = low-res masks, four times as fine.
"""

from torch import Tensor
from transformers import SamConfig, SamModel


class SamSegmenter(SamModel):
    """A transformers SAM with the same weights under the same names.

    Its own `forward` adds a mask prompt to the image features *before* it repeats them per prompt, so that questions
    about one image cannot each bring a mask. Here features are taken by index instead, once for every mask.
    """

    config: SamConfig

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: names of tensors in older layouts are mapped as for the class that this one is made of."""
        return False

    @property
    def image_size(self) -> int:
        """Side of the square it looks at, in pixels."""
        return int(self.config.vision_config.image_size)

    @property
    def mask_size(self) -> int:
        """Side of its low-res masks."""
        return 4 * int(self.config.prompt_encoder_config.image_embedding_size)

    @property
    def dim(self) -> int:
        """Width of a prompt token."""
        return int(self.config.prompt_encoder_config.hidden_size)

    def encode(self, pixels: Tensor) -> Tensor:
        """Features (images, dim, h, w) of `pixels` (images, 3, side, side), normalised and padded. Once per image."""
        found: Tensor = self.vision_encoder(pixels.to(self.vision_encoder.dtype)).last_hidden_state
        return found

    def grid(self, features: Tensor) -> Tensor:
        """The features as (images, dim, h, w), for the refiner."""
        return features

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """Prompts (masks, 2, dim), one for each corner, of `boxes` (masks, 4): x1 y1 x2 y2 in pixels of the square."""
        boxes = boxes.to(self.dtype)[None]  # one image with all of them
        sparse, _ = self.prompt_encoder(input_points=None, input_labels=None, input_boxes=boxes, input_masks=None)
        found: Tensor = sparse[0]
        return found

    def decode(
        self, features: Tensor, tokens: Tensor, image_index: Tensor, mask_prompt: Tensor | None = None
    ) -> Tensor:
        """Low-res logits of every mask, in one call of the mask decoder.

        Args: `features` (images, dim, h, w); `tokens` (masks, prompts, dim), one prompt token each and no padding
        point, or the corners of a box;
        `image_index` (masks,); `mask_prompt` (masks, H, W), raw logits, or None.
        Returns: (masks, H, W): the decoder's single-mask output.
        """
        masks = tokens.shape[0]
        if not masks:
            return tokens.new_zeros((0, self.mask_size, self.mask_size))
        embedding = features[image_index]  # (masks, dim, h, w)
        if mask_prompt is None:
            dense = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(embedding)
        else:
            dense = self.prompt_encoder.mask_embed(mask_prompt[:, None].to(embedding.dtype))
        positions = self.get_image_wide_positional_embeddings().to(embedding.dtype)
        low_res, quality = self.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=positions.expand(masks, -1, -1, -1),
            sparse_prompt_embeddings=tokens[:, None].to(embedding.dtype),  # (masks, 1, 1, dim)
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        found: Tensor = low_res[:, 0, 0]
        if quality.requires_grad:  # its head is asked nothing, but a trained tensor outside the graph stops DDP
            found = found + 0.0 * quality.sum()
        return found
