"""Generated things to learn: what no model can know, with items to train on, others to be tested by, and a score."""

from attlas.training.tasks.making import KINDS, make_task
from attlas.training.tasks.scoring import Score, score
from attlas.training.tasks.task import Item, Task

__all__ = ["KINDS", "Item", "Score", "Task", "make_task", "score"]
