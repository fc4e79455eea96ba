"""What networks start from: tensors of a package's networks, or of files of weights."""

from implant_model.networks.shuffle_trunk import STAGE2, STAGE3, trunk_state
from implant_model.networks.spec import FISHER_LITE, FISHER_SHUFFLE, NetworkSpec
from implant_model.networks.weights import load_network
from implant_model.package.load import load_package
from training.first_weights import of_architecture, trunk_network, trunks_of_files
from training.fit.worker_inputs import State
from training.settings import NetworkSettings


def first_weights(package_uri: str, spec: NetworkSpec) -> State | None:
    """Take a package's network as a start, all but its head; None without a package.

    Where it has networks of the same architecture with the wanted channels and with others, the
    former is taken; of another number of channels all but the first layer fits.

    Raises:
        UsageError: The package holds no network of the same architecture.
    """
    if not package_uri:
        return None
    package = load_package(package_uri)
    fitting = of_architecture(package.networks, spec.architecture, package_uri)
    other = min(fitting, key=lambda other: other.channels != spec.channels)
    network = load_network(other, len(package.catalogue), package.files[other.file])
    return {
        key: value for key, value in network.state_dict().items() if not key.startswith("head.")
    }


def first_segmenter(package_uri: str, spec: NetworkSpec) -> State | None:
    """A package's U-Net as a start; None without a package, or one of the same width in it."""
    if not package_uri:
        return None
    package = load_package(package_uri)
    for other in package.networks:
        if (other.role, other.width) == (spec.role, spec.width):
            return load_network(other, 1, package.files[other.file]).state_dict()
    return None


def first_trunks(network: NetworkSettings) -> tuple[State, ...]:
    """Return the weights of each trunk of a `FisherBackbone`, in its order; none where it has none.

    Raises:
        UsageError: They are not in the files or the package that the settings name.
    """
    if network.architecture == FISHER_LITE:
        return trunks_of_files(network.weights)
    if network.architecture != FISHER_SHUFFLE:
        return ()
    package = load_package(network.start_from)
    spec = trunk_network(package.networks, network.start_from)
    packed = load_network(spec, len(package.catalogue), package.files[spec.file]).state_dict()
    return tuple(trunk_state(packed, stages) for stages in (STAGE2, STAGE3))
