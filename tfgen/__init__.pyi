from tfgen import testing as testing
from tfgen.datasets.building import build as build
from tfgen.datasets.storage import Dataset as Dataset
from tfgen.descriptors.acsf import ACSF as ACSF
from tfgen.evaluation.evaluate import evaluate as evaluate
from tfgen.evaluation.metrics import Metrics as Metrics
from tfgen.evaluation.settings import EvaluationSettings as EvaluationSettings
from tfgen.fingerprints.fingerprint import Fingerprint as Fingerprint
from tfgen.generation.generate import generate as generate
from tfgen.generation.settings import GenerationSettings as GenerationSettings
from tfgen.generation.settings import ProposalSettings as ProposalSettings
from tfgen.inversion.reconstruct import ReconstructionResult as ReconstructionResult
from tfgen.inversion.reconstruct import reconstruct as reconstruct
from tfgen.models.cvae import CVAE as CVAE
from tfgen.models.export import export as export
from tfgen.models.model import Model as Model
from tfgen.models.settings import NNPSettings as NNPSettings
from tfgen.models.settings import TrainingSettings as TrainingSettings
from tfgen.models.training import train as train
from tfgen.potentials.emt import EMT as EMT
from tfgen.relaxation.relax import RelaxationResult as RelaxationResult
from tfgen.relaxation.relax import relax as relax
from tfgen.status import Status as Status
from tfgen.structures.batch import StructureBatch as StructureBatch
from tfgen.warnings import TfgenWarning as TfgenWarning

__version__: str
