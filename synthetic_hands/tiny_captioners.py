"""The real classes of the captioners, of CLIP and of Llama in miniature, with random weights and byte tokenizers."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from synthetic_hands.tiny_model import byte_characters, byte_tokenizer

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
PICTURE = {**TEXT, "image_size": 32, "patch_size": 16}


def byte_level_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Every byte is a token, after the special ones."""
    names = ["<pad>", "<s>", "</s>"]
    vocabulary = {token: index for index, token in enumerate([*names, *byte_characters().values()])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", **special
    )


def enlarge_weights(model) -> None:
    """Larger random weights, so that different pictures get different captions."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.ndim > 1 else 1)


def save_blip2(folder: Path) -> Path:
    torch.manual_seed(0)
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": 32, "width": 32}), byte_level_tokenizer(), num_query_tokens=4
    )
    vocabulary = len(processor.tokenizer)
    config = Blip2Config(
        vision_config=PICTURE,
        qformer_config={**TEXT, "encoder_hidden_size": 32, "cross_attention_frequency": 1},
        text_config={
            "model_type": "opt",
            "vocab_size": vocabulary,
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        num_query_tokens=4,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForConditionalGeneration(config)
    enlarge_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_paligemma(folder: Path) -> Path:
    torch.manual_seed(0)
    image_processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    image_processor.image_seq_length = 4
    processor = PaliGemmaProcessor(image_processor, byte_level_tokenizer())
    config = PaliGemmaConfig(
        vision_config={**PICTURE, "model_type": "siglip_vision_model", "projection_dim": 32},
        text_config={**TEXT, "model_type": "gemma", "head_dim": 8, "num_key_value_heads": 1}
        | {"vocab_size": len(processor.tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    model = PaliGemmaForConditionalGeneration(config)
    enlarge_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_vitgpt2(folder: Path, *, full_size: bool = False) -> Path:
    """`full_size`: as large as the published model (ViT-B/16, GPT-2 small), except for the vocabulary."""
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    small = {} if full_size else {"n_embd": 32, "n_layer": 2, "n_head": 4}
    decoder = GPT2Config(vocab_size=len(tokenizer), add_cross_attention=True, is_decoder=True, **small, **tokens)
    encoder = ViTConfig(**({} if full_size else PICTURE))
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    model = VisionEncoderDecoderModel(config)
    enlarge_weights(model)
    model.generation_config.update(decoder_start_token_id=1, **tokens)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ViTImageProcessor(size={"height": encoder.image_size, "width": encoder.image_size}).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**TEXT, **tokens, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id},
        vision_config=PICTURE,
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor, tokenizer).save_pretrained(folder)
    return folder


def save_llama(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant: {% endif %}"
    )
    config = LlamaConfig(
        **TEXT, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=4096
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
