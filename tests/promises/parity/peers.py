"""The peers, in the order of the page that shows them."""

from __future__ import annotations

from parity import fastai, fvcore, keras, mmengine, optax, others, pretraining, timm

__all__ = ["PEERS", "UNSAID"]

PEERS = [
    timm.PEER, fastai.PEER, mmengine.PEER, fvcore.PEER, *pretraining.PEERS, keras.PEER, optax.PEER, *others.PEERS,
]  # fmt: skip

#: What lrkit cannot say, and why. A row without overrides must stand here, and no other.
UNSAID: dict[str, str] = {
    "timm: CosineLRScheduler(t_initial=60, warmup_t=10, warmup_lr_init=0.01)":
        "The warmup lies over the beginning of the schedule",
    "timm: CosineLRScheduler(t_initial=60, k_decay=2.0)":
        "An exponent on the progress",
    "timm: TanhLRScheduler(t_initial=60)":
        "No tanh",
    "timm: CosineLRScheduler(t_initial=60, noise_range_t=(20, 40))":
        "Noise on the rate",
    "timm: WSDLRScheduler(t_initial=50, decay_t=20, decay_fn='power', decay_power=2, warmup_t=10, warmup_lr_init=0.01)":
        "1 - u ** p",
    "timm: WSDLRScheduler(t_initial=50, decay_t=20, decay_fn='exp', warmup_t=10, warmup_lr_init=0.01)":
        "A normalised exponential decay",
    "timm: WSDLRScheduler(t_initial=50, decay_t=20, stable_fn='rsqrt', decay_fn='linear', warmup_t=10, ...)":
        "A product of two schedules",
    "timm: WSDLRScheduler(t_initial=50, decay_t=1, stable_fn='power', stable_power=0.3, warmup_t=10, ...)":
        "An inverse power other than 1/2",
    "fastai: SchedPoly(1.0, 0.0, power=2)":
        "1 - u ** p",
    "Megatron-LM: lr_decay_style='WSD', lr_wsd_decay_style='exponential', wsd_decay_steps=30":
        "A normalised exponential decay",
    "DeepSpeed: WarmupDecayLR(total_num_steps=60, warmup_num_steps=10)":
        "A logarithmic warmup",
    "Keras: PolynomialDecay(1.0, 15, end_learning_rate=0.1, power=2.0, cycle=True)":
        "A polynomial with cycles",
    "optax: cosine_decay_schedule(1.0, 60, exponent=2)":
        "An exponent on the cosine",
    "scikit-learn: SGDRegressor()  # invscaling, power_t=0.25":
        "An inverse power other than 1/2",
    "Paddle: LambdaDecay(1.0, lambda t: 0.95**t * (1 + sin(t)) / 2)":
        "A formula",
    "TensorFlow Addons: ExponentialCyclicalLearningRate(0.1, 1.0, step_size=10, gamma=0.7, scale_mode='cycle')":
        "A cyclic schedule whose height falls once per cycle",
    "TensorFlow Addons: CyclicalLearningRate(0.1, 1.0, step_size=10, scale_fn=lambda c: abs(sin(c * pi / 2)))":
        "A cyclic schedule whose scale is a formula",
    "pytorch_optimizer: get_wsd_schedule(10, 60, 30, cooldown_type='1-square')":
        "1 - u ** p",
}  # fmt: skip
