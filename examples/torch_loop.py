"""A plain torch loop: a plan, an optimizer, and a scheduler that writes the rates of the plan into it."""

import torch
from torch import nn

import lrkit

torch.manual_seed(0)
model = nn.Linear(8, 2)
x = torch.randn(256, 8)
y = (x.sum(1) > 0).long()
epochs, batch_size = 3, 32
per_epoch = len(x) // batch_size

plan = lrkit.plan(
    lr=0.1, optimizer="momentum", schedule="cosine", warmup="linear", warmup_length="1ep",
    steps=epochs * per_epoch, steps_per_epoch=per_epoch,
)  # fmt: skip
print(plan)

optimizer = torch.optim.SGD(model.parameters(), lr=plan.base(), momentum=0.9)
scheduler = lrkit.PlanScheduler(optimizer, plan)
for _ in range(epochs):
    for i in torch.randperm(len(x)).split(batch_size):
        loss = nn.functional.cross_entropy(model(x[i]), y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
print(f"loss {loss.item():.3f} after {scheduler.last_epoch} steps")
