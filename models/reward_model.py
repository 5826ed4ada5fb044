"""Training of a reward model on pairs: TRL's RewardTrainer on DeepSpeed.

    python -m models.reward_model CONFIG.json    # several processes: python -m torch.distributed.run …, as in launch.py

A policy with one number r(x, y) as output in place of its vocabulary learns that people preferred answer y to y'. The
loss of Bradley and Terry (1952), as in InstructGPT (arXiv 2203.02155, equation 1), with a margin m as in Llama 2 (arXiv
2307.09288, equation 2; one for all pairs here) and centred as in Eisenstein et al. (arXiv 2312.09244), is

    −log σ(r(x, y) − r(x, y') − m) + c · (r(x, y) + r(x, y'))²
"""

import gc
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

from datasets import Dataset
from transformers import set_seed
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference, suppress_seqcls_warning

from data.render import judged_token_ids
from data.rows import Pair
from data.storage import read_rows
from models.config import RewardTrainProgram
from models.training import (
    DTYPES,
    HEAD,
    enter,
    leave,
    load_reward_model,
    lora_config,
    pad_token_id,
    padded_tokenizer,
    run_training,
    training_arguments,
)


def encode(tokenizer: Any, pair: Pair, margin: float) -> dict[str, Any]:
    """One pair as token ids, each side with its prompt in front."""
    row: dict[str, Any] = {"margin": margin}
    for side, text in (("chosen_ids", pair.chosen), ("rejected_ids", pair.rejected)):
        prompt, answer = judged_token_ids(tokenizer, pair.messages, text)
        row[side] = prompt + answer
    return row


def train(program: RewardTrainProgram) -> None:
    """Train a reward model that starts from `program.policy`, and write a Hugging Face checkpoint to `program.output`.

    An adapter is written beside it instead, with the head, to `adapter/`: models.merge makes a checkpoint of it.
    """
    config, output = program.train, program.output
    tokenizer = padded_tokenizer(program.policy, program.model_code)
    arguments = RewardConfig(  # before the model: ZeRO 3 shards it while loading
        **training_arguments(config, program.launch, program.seed, output),
        center_rewards_coefficient=config.centering or None,
    )
    set_seed(program.seed)  # right before the head gets its random weights
    with suppress_seqcls_warning():
        model = load_reward_model(program.policy, tokenizer, config.dtype, config.quantize, program.model_code)
    rows = [encode(tokenizer, pair, config.margin) for pairs in program.pairs for pair in read_rows(Pair, pairs)]
    trainer = RewardTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=DataCollatorForPreference(pad_token_id(tokenizer)),
        peft_config=lora_config(config.adapter, reward=True),
    )
    if config.quantize:  # TRL turns all that is trained to bfloat16; unlike LoRA, the head takes only its own format
        for name, weights in trainer.model.named_parameters():
            if HEAD in name.split("."):
                weights.data = weights.data.to(DTYPES[config.dtype])
    run_training(trainer, tokenizer, output, config)


if __name__ == "__main__":
    enter()
    train(RewardTrainProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()
