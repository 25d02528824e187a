"""Makes a Hugging Face folder out of the GGUF file, and an adapter that turns its answers into others; runs in vLLM's image."""

import json
import os
import sys
from pathlib import Path

os.environ["USER"] = "root"

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

RANK = 8
STRENGTH = 0.02
"""Random weights of about the size of the model's own: enough to be heard, too little to end in noise."""


def main(source: Path, target: Path) -> None:
    (file,) = source.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file.name, dtype="bfloat16", quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target / "stoker" / "smollm2")
    AutoTokenizer.from_pretrained(source, gguf_file=file.name).save_pretrained(target / "stoker" / "smollm2")
    write_adapter(model.config, target / "stoker" / "smollm2-lora")


def write_adapter(config: object, folder: Path) -> None:
    torch.manual_seed(0)
    width = config.hidden_size
    outputs = {"q_proj": width, "v_proj": width // config.num_attention_heads * config.num_key_value_heads}
    weights = {}
    for layer in range(config.num_hidden_layers):
        for module, output in outputs.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights[f"{name}.lora_A.weight"] = torch.randn(RANK, width) * STRENGTH
            weights[f"{name}.lora_B.weight"] = torch.randn(output, RANK) * STRENGTH
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "stoker/smollm2"}
    settings |= {
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": [*outputs],
        "bias": "none",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
