"""What each head does: its roles, measured on behaviour, its statistics on a document, and what its removal changes.

The room is also the verb: ``attlas.heads(lm)``.
"""

from attlas._rooms import make_callable
from attlas.heads.ablation import AblationEffects, ablation_effects
from attlas.heads.importance import HeadImportance, head_importance
from attlas.heads.measuring import heads
from attlas.heads.offset import AtOffset
from attlas.heads.relations.labelled import LabelledPairs, Pair, sentences
from attlas.heads.relations.measuring import relation_scores
from attlas.heads.relations.table import BestHead, RelationScores
from attlas.heads.role_table import HeadTable, Held, Prediction, RoleScores
from attlas.heads.roles import ROLES, Role
from attlas.heads.statistics import head_statistics
from attlas.heads.table import NEAR, STATISTICS, HeadStatistics, LayerStatistics, Statistic

__all__ = [
    "NEAR",
    "ROLES",
    "STATISTICS",
    "AblationEffects",
    "AtOffset",
    "BestHead",
    "HeadImportance",
    "HeadStatistics",
    "HeadTable",
    "Held",
    "LabelledPairs",
    "LayerStatistics",
    "Pair",
    "Prediction",
    "RelationScores",
    "Role",
    "RoleScores",
    "Statistic",
    "ablation_effects",
    "head_importance",
    "head_statistics",
    "heads",
    "relation_scores",
    "sentences",
]

make_callable(__name__, heads)
