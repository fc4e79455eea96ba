"""A package at work on CPUs, in a process without torch, which takes 3 s to import and 0.3 GB.

Letters: N images, B batch, C classes (implants), F features, H height, W width.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from implant_model.batches import CPU_BATCH_SIZE, Images, in_batches
from implant_model.networks.engine import Converted, Engine
from implant_model.networks.spec import Precision
from implant_model.package.load import ModelPackage
from implant_model.predictions import Predictions, check_size, predict


class CompiledClassifier:
    """Names the implant on preprocessed radiographs, as `Classifier` does.

    Args:
        package: As `load_package` returned it.
        converted: Its networks.
        precision: See `Classifier`.
        streams: Batches that are worked on at a time.
        threads: Of each of them.

    Raises:
        EngineError: OpenVINO is not usable here.
    """

    def __init__(
        self,
        package: ModelPackage,
        converted: Converted,
        precision: Precision = "float32",
        streams: int = 1,
        threads: int = 1,
    ) -> None:
        self._package = package
        self._engine = Engine(converted, precision, streams, threads)
        self._reference = package.novelty_reference()
        self._pool = ThreadPoolExecutor(streams) if streams > 1 else None

    def classify(self, images_NHW: Images, batch_size: int | None = None) -> Predictions:
        """Identify images, see `Classifier.classify`.

        Raises:
            ValueError: Images of another dtype or size, or a batch size below 1.
            PackageError: The networks gave a value that is not finite.
            EngineError: The first batch of a size: OpenVINO does not answer as torch does.
        """
        check_size(self._package, images_NHW)
        size = CPU_BATCH_SIZE if batch_size is None else batch_size
        run = partial(self._engine.run, batch_size=size)
        logs_NC, features_NF = in_batches(run, images_NHW, size, pool=self._pool)
        return predict(self._package, logs_NC, self._reference.score(features_NF))
