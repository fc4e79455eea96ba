r"""Says what a model sees on one radiograph, and shows where it looks.

    python -m jobs.explain --model models/phantom radiograph.dcm
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.explain --model s3://models/hips s3://pacs/one.png --output explanation.png

Prints outcome, candidates with calibrated probabilities and novelty, and draws the radiograph as
the networks see it, the segmenter's cut-out (where the package has a segmenter) and a saliency
picture. Neither holds the file's name or anything of its header; what is burned into the pixels is
in the picture. IMAGE is DICOM, PNG or JPEG, a path or s3://.
Exit codes: 0 done; 2 the call is wrong; 3 the image is rejected, and its reason is printed.
"""

import sys
from collections.abc import Sequence

import numpy as np

from implant_model.archives.members import Member
from implant_model.classifier import Classifier, Predictions
from implant_model.decode.decoded import prepare_member
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import MemberError, Reason
from implant_model.identification import read_radiograph
from implant_model.limits import Limits
from implant_model.package.catalogue import Implant
from implant_model.package.load import ModelPackage, load_package
from implant_model.saliency import explain
from jobs.entry.command import DISCLAIMER, OK, Parser, run_command
from jobs.report import wording
from jobs.report.page import plain
from jobs.report.saliency_picture import checked_path, explanation_picture, write_picture

SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = Parser("explain", __doc__)
    parser.add_argument("image", metavar="IMAGE", help="one radiograph")
    parser.add_argument("--model", required=True, metavar="URI", help="a model package")
    parser.add_argument("--output", default="explanation.png", metavar="PNG")
    call = parser.parse_args(arguments)
    output = checked_path(call.output)
    package = load_package(call.model, weights=False)
    image_HW = prepare(read_radiograph(call.image, "IMAGE"), package.preprocessing)
    classifier = Classifier(package)
    predictions = classifier.classify(image_HW[None])
    best = int(predictions.probabilities_NC[0].argmax())
    title, lines = describe(package, predictions)
    name = plain(package.catalogue[best].name)
    picture = explanation_picture(explain(classifier, image_HW, best), title, lines, name)
    write_picture(output, picture)
    print("\n".join([title, *lines, f"Picture: {output}", DISCLAIMER]))
    return OK


def prepare(member: Member, spec: Preprocessing) -> np.ndarray:
    """Decode and preprocess in a child process.

    Raises:
        MemberError: There is no picture that the model may see.
    """
    with DecodeProcess(spec, Limits()) as decoder:
        prepared = prepare_member(member, decoder.prepare)
    if prepared.image is None:
        raise rejected(prepared.reason)
    return prepared.image


def rejected(reason: Reason | None) -> MemberError:
    """Return the reason as one sentence, without the file's name."""
    known = Reason.CORRUPT if reason is None else reason
    why = wording.REASONS[known]
    return MemberError(known, f"The image is rejected as {known}: {why[:1].lower()}{why[1:]}")


def describe(package: ModelPackage, predictions: Predictions) -> tuple[str, list[str]]:
    """Return title and lines for people: outcome, the best three and all candidates, novelty."""
    outcome, candidates = predictions.outcomes[0], predictions.candidates[0]
    probabilities_C, novelty = predictions.probabilities_NC[0], float(predictions.novelty_N[0])
    ranked = [int(index) for index in np.argsort(-probabilities_C, kind="stable")]
    lines = [f"{wording.OUTCOMES[outcome]} Model {package.id}."]
    for index in ranked[: max(SHOWN, len(candidates))]:
        mark = "candidate" if index in candidates else "no candidate"
        lines.append(f"{probabilities_C[index]:.3f}  {name_of(package.catalogue[index])}, {mark}")
    side = "above" if novelty > package.novelty.threshold else "not above"
    lines.append(
        f"Novelty {novelty:.1f}, {side} the threshold {package.novelty.threshold:.1f}. Candidates "
        f"are made to hold the right implant in {100 * package.coverage:.0f} % of radiographs like "
        "those that the model was calibrated on."
    )
    return f"Outcome: {outcome}", lines


def name_of(implant: Implant) -> str:
    """Return an implant with its maker and what the catalogue notes of it."""
    product = f" {implant.product}" if implant.product else ""
    note = f"; MR: {implant.mr_safety} ({implant.mr_safety_source})" if implant.mr_safety else ""
    return plain(f"{implant.name} ({implant.manufacturer}{product}{note})")


if __name__ == "__main__":
    run_command("explain", lambda: main(sys.argv[1:]))
