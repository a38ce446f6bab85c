"""An iteration of finetuning in the structure of the paper's released code, on the same networks.

What it evaluates, as its six training scripts do: the tuned model without gradient, looked at for the targets; the
frozen model on the same noise, looked at for the image loss; then, in micro-batches, the text encoder, every step
again with a checkpointed U-Net and one graph through all steps, the decoder, the detector, and the losses. Weights are
float16, adapters float32; attention is PyTorch's fused one, memory is in its usual format, and the rest (schedule,
losses, judges) is this library's, so that nothing but the structure differs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor
from torch.optim import AdamW

from distalign.alignment.distributed import Group
from distalign.alignment.objective import Objective
from distalign.alignment.originals import Originals
from distalign.alignment.plan import TrainingPlan
from distalign.alignment.reading import class_probabilities
from distalign.alignment.trainer import FinetunePaths, Judges
from distalign.diffusion.adapters import MovingAverage, attach_adapter
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import load_generator
from distalign.diffusion.sampler import advance, decode
from distalign.diffusion.schedule import build_schedule
from distalign.prompts import load_split

SAMPLE, GRADIENT = 8, 4  # its micro-batches


class ReleasedStructure:
    """Everything loaded, with an optimiser."""

    def __init__(self, spec: Mapping[str, Any], paths: FinetunePaths, judges: Judges, device: torch.device) -> None:
        self.spec, self.judges, self.device = spec, judges, device
        self.frozen = load_generator(paths.backbone, spec["plan"], device)
        self.tuned = load_generator(paths.backbone, spec["plan"], device)
        for pipeline in (self.frozen, self.tuned):
            pipeline.unet.set_attn_processor(AttnProcessor2_0())
            for module in pipeline.modules:
                module.to(dtype=pipeline.dtype, memory_format=torch.contiguous_format)
        adapter = attach_adapter(self.tuned, spec["train"], spec["rank"], 0, seed=0)
        self.parameters = list(adapter.parameters.values())
        self.optimizer = AdamW(self.parameters, spec["learning_rate"], weight_decay=spec["weight_decay"])
        self.average = MovingAverage(adapter.parameters, spec["ema_decay"])
        self.plan = TrainingPlan.from_spec(spec["plan"], load_split(paths.prompts, "train"))
        self.originals = Originals(paths.originals, self.plan, judges.reader.classifier.attributes)
        # Targets are chosen within a micro-batch here; at any confidence, so that no image is left out for that.
        settings = dict(spec) | {"confidence": 0.0, "micro_batch": {"sample": GRADIENT, "gradient": GRADIENT}}
        self.objective = Objective(settings, self.tuned, judges.reader, judges.bank, Group(device=device))

    def iterate(self, k: int) -> None:
        """One update."""
        iteration = self.plan.iteration(k)
        text = iteration.prompts[0].text
        noise = initial_noise(self.tuned.latent_shape, iteration.noise_seeds).to(self.device)
        schedule = build_schedule(self.tuned.scheduler_config, iteration.steps)
        with torch.no_grad():
            for pipeline, features in ((self.tuned, False), (self.frozen, True)):
                for part in noise.split(SAMPLE):
                    self._look(decode(pipeline, self._sample(pipeline, schedule, part, text), len(part)), features)
        self.optimizer.zero_grad()
        self.tuned.unet.enable_gradient_checkpointing()
        self.tuned.unet.train()  # else diffusers does not checkpoint; there is no dropout
        for start in range(0, len(noise), GRADIENT):
            part = slice(start, min(start + GRADIENT, len(noise)))
            z0 = self._sample(self.tuned, schedule, noise[part], text)
            few = replace(
                iteration,
                prompt_index=iteration.prompt_index[part],
                index=iteration.index[part],
                noise_seeds=iteration.noise_seeds[part],
            )
            originals = self.originals.batch(iteration, part, self.device)
            # Decodes with a graph, finds faces, and goes back from the losses to the latents; then on from there.
            z0.backward(self.objective.pull(z0.detach(), originals, few, k, keep_graph=True).cotangent)
        self.tuned.unet.eval()
        self.tuned.unet.disable_gradient_checkpointing()
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= len(noise)
        self.optimizer.step()
        self.average.update()

    def _sample(self, pipeline: Any, schedule: Any, noise: Tensor, text: str) -> Tensor:
        """Final latents; with gradients on, a graph from each step's prediction to them."""
        states = self._encode(pipeline, text).repeat_interleave(len(noise), 0)
        timesteps = torch.as_tensor(schedule.timesteps, device=self.device)
        z, before = noise, None
        for i in range(schedule.steps):
            doubled = z.detach().repeat(2, 1, 1, 1).to(pipeline.dtype)
            output = pipeline.unet(doubled, timesteps[i], encoder_hidden_states=states).sample.float()
            empty, conditional = output.chunk(2)
            z, before = advance(schedule, i, z, empty + self.spec["guidance"] * (conditional - empty), before)
        return z

    def _encode(self, pipeline: Any, text: str) -> Tensor:
        """(2, L, D): the empty prompt padded to the length of the prompt, with a mask, and the prompt."""
        tokens = pipeline.tokenizer(["", text], padding="longest", return_tensors="pt").to(self.device)
        return pipeline.text_encoder(**tokens).last_hidden_state

    def _look(self, images: Tensor, features: bool) -> None:
        """Faces and classes; of originals also what the losses compare with."""
        reader = self.judges.reader
        faces = reader.detect(images)
        class_probabilities(reader.classifier, images, faces)
        if features:
            for encoder in reader.encoders.values():
                encoder.encode_images(images)
            reader.embed(images, faces.landmarks)
