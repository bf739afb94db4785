"""The public Python API: what `import edgetl` offers, and what the commands call. `edgetl.__all__` lists the names."""

from edgetl.api.models import FusedModel as FusedModel
from edgetl.api.models import LoadedEngine as LoadedEngine
from edgetl.api.models import Model as Model
from edgetl.api.models import fuse as fuse
from edgetl.api.models import load as load
from edgetl.api.models import load_engine as load_engine
from edgetl.api.models import predict as predict
from edgetl.api.profiles import ProfileResult as ProfileResult
from edgetl.api.profiles import profile as profile
from edgetl.api.studies import Study as Study
from edgetl.api.studies import StudyRun as StudyRun
from edgetl.config import DeploymentKind as DeploymentKind
from edgetl.config import InputContract as InputContract
from edgetl.config import Metric as Metric
from edgetl.config import MetricWords as MetricWords
from edgetl.config import register_deployment as register_deployment
from edgetl.engine.options import BuildOptions as BuildOptions
from edgetl.engine.options import RunOptions as RunOptions
from edgetl.errors import EdgetlError as EdgetlError
from edgetl.errors import NotMetError as NotMetError
from edgetl.errors import StudyError as StudyError
from edgetl.measure.metrics import Computation as Computation
from edgetl.measure.metrics import register_metric as register_metric
from edgetl.stages.stage import Options as Options
