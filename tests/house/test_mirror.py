"""A test module for each module, or the one that covers it: a new module without tests fails."""

import functools

import pytest

from tests.support.import_graph import graph, imports, modules, name_of, reachable
from tests.support.paths import ROOT

TESTS = ROOT / "tests"
FOLDERS = {
    "implant_model": "model",
    "training": "training",
    "jobs/auditing": "auditing",
    "jobs/checks": "operations",
    "jobs/tables": "tables",
}
"""Where the tests of a folder, or of those below it, lie; otherwise in one of its last name."""
COVERED_BY = {
    # Steps of one reading: each is met through the whole, where a wrong one loses a member.
    "implant_model.archives.members": "archives/test_read.py",
    "implant_model.archives.streams": "archives/test_read.py",
    "implant_model.archives.tar_header": "archives/test_tar.py",
    "implant_model.archives.zip_directory": "archives/test_zip.py",
    "implant_model.archives.zip_entry": "archives/test_zip.py",
    "implant_model.archives.zip_salvage": "archives/test_zip.py",
    # Parts of one decode: judged by the picture and the reason that come out.
    "implant_model.decode.attributes": "decode/test_prepare.py",
    "implant_model.decode.codecs": "decode/test_prepare.py",
    "implant_model.decode.decoded": "decode/test_prepare.py",
    "implant_model.decode.dicom": "decode/test_prepare.py",
    "implant_model.decode.dicom_display": "decode/test_prepare.py",
    "implant_model.decode.elements": "decode/test_prepare.py",
    "implant_model.decode.frames": "decode/test_rle.py",
    "implant_model.decode.kinds": "torture/test_torture.py",
    "implant_model.decode.markers": "decode/test_png.py",
    "implant_model.decode.raster": "decode/test_png.py",
    "implant_model.decode.sandbox_child": "decode/test_sandbox.py",
    "implant_model.decode.version": "decode/test_golden.py",
    # Values without a behaviour of their own: raised and compared wherever bytes are read.
    "implant_model.errors": "archives/test_read.py",
    "implant_model.limits": "archives/test_expand.py",
    "implant_model.batches": "model/test_classifier.py",
    "implant_model.compiled_classifier": "package/test_conversion.py",
    "implant_model.networks.convert": "networks/test_engine.py",
    "implant_model.predictions": "model/test_classifier.py",
    "implant_model.networks.descriptors": "networks/test_fisher.py",
    "implant_model.networks.lite_trunk": "networks/test_fisher.py",
    "implant_model.networks.unet": "networks/test_build.py",
    "implant_model.package.load": "package/test_package.py",
    "implant_model.package.manifest": "package/test_package.py",
    "implant_model.package.save": "package/test_package.py",
    "implant_model.storage.spreadsheets": "auditing/test_audit.py",
    "implant_model.storage.secrets": "model/test_pseudonym_key.py",
    # A phantom is judged as a whole: by its picture, its mask and the file that comes back.
    **{
        f"implant_model.phantoms.{name}": "phantoms/test_render.py"
        for name in (
            *("anatomy", "archive_files", "bones", "dicom_files", "files", "film", "hips"),
            *("knees", "others", "picture_files", "scenes", "shapes", "solids"),
        )
    },
    "implant_model.radiographs": "pipeline/test_units.py",
    "jobs.tables.archive_rows": "tables/test_publish.py",
    "jobs.tables.stored_parquet": "tables/test_shared_files.py",
    "implant_model.storage.s3_reader": "storage/test_storage_faults.py",
    "training.calibrate": "training/test_packaging.py",
    "training.card": "training/test_packaging.py",
    "training.config": "training/test_settings.py",
    "training.data.bundles": "training/test_reading.py",
    "training.data.divide": "training/test_set_report.py",
    "training.data.links": "training/test_duplicates.py",
    "training.data.label_rows": "large_sets/test_set_memory.py",
    "training.data.set_columns": "large_sets/test_set_memory.py",
    "training.data.shards": "training/test_reading.py",
    "training.data.ray_reading": "training/test_reading.py",
    "training.data.gather": "training/test_dataset.py",
    "training.data.labelled": "training/test_dataset.py",
    "training.data.patients": "training/test_dataset.py",
    "training.data.labels": "training/test_dataset.py",
    "training.data.shortcuts": "training/test_set_report.py",
    "training.fisher.canonical_pose": "networks/test_alignment.py",
    "training.fisher.fit_fisher": "networks/test_fisher.py",
    "training.fisher.gmm": "networks/test_fisher.py",
    # Parts of a fit on workers: met in the run of the whole job on two of them.
    "training.fit.loop": "training/test_train.py",
    "training.fit.objectives": "fit/test_segmenter.py",
    "training.fit.scoring": "training/test_fitting.py",
    "training.fit.segmenting": "fit/test_segmenter.py",
    "training.fit.trainer": "training/test_train.py",
    "training.fit.worker_inputs": "training/test_train.py",
    **{
        f"training.masks.{name}": "masks/test_masks.py"
        for name in ("automatic", "grade", "mask_files", "mask_set", "objects", "overlap")
    },
    # The audit of a registry whose errors are known, in the test module of its part.
    "jobs.auditing.assemble": "auditing/test_audit.py",
    "jobs.auditing.audit_options": "auditing/test_audit.py",
    "jobs.auditing.confusion": "auditing/test_audit_rate.py",
    "jobs.auditing.counting": "auditing/test_audit_page.py",
    "jobs.auditing.evidence": "auditing/test_audit_rate.py",
    "jobs.auditing.files": "auditing/test_audit.py",
    "jobs.auditing.findings": "auditing/test_audit_page.py",
    "jobs.auditing.images": "auditing/test_audit_rate.py",
    "jobs.auditing.joining": "auditing/test_audit_rate.py",
    "jobs.auditing.last_audit": "auditing/test_audit.py",
    "jobs.auditing.output": "auditing/test_audit.py",
    "jobs.auditing.package_facts": "auditing/test_audit_rate.py",
    "jobs.auditing.pictures": "auditing/test_audit_pictures.py",
    "jobs.auditing.rate": "auditing/test_audit_rate.py",
    "jobs.auditing.registry.causes": "auditing/test_audit_registries.py",
    "jobs.auditing.registry.claims": "auditing/test_audit_names.py",
    "jobs.auditing.registry.columns": "auditing/test_audit.py",
    "jobs.auditing.registry.components": "auditing/test_audit_registries.py",
    "jobs.auditing.registry.dates": "auditing/test_audit_names.py",
    "jobs.auditing.registry.identifiers": "auditing/test_audit_registries.py",
    "jobs.auditing.registry.names": "auditing/test_audit_names.py",
    "jobs.auditing.registry.proposals": "auditing/test_audit_names.py",
    "jobs.auditing.registry.records": "auditing/test_audit_names.py",
    "jobs.auditing.registry.registry_file": "auditing/test_audit.py",
    "jobs.auditing.registry.sites": "auditing/test_audit_names.py",
    "jobs.auditing.registry.spelling": "auditing/test_audit_names.py",
    "jobs.auditing.registry.synonyms": "auditing/test_audit_names.py",
    "jobs.auditing.registry.words": "auditing/test_audit_names.py",
    "jobs.auditing.safety": "auditing/test_audit_page.py",
    "jobs.auditing.verdicts": "auditing/test_audit_page.py",
    "jobs.compact": "tables/test_compaction.py",
    "jobs.checks.machine": "operations/test_doctor.py",
    "jobs.checks.nodes": "operations/test_doctor.py",
    "jobs.checks.ray_access": "operations/test_doctor.py",
    **{
        f"jobs.evaluating.{name}": "evaluating/test_evaluate.py"
        for name in (
            *("assessment", "evaluation", "evaluation_page", "examination"),
            *("opponent", "outcomes", "paired", "evaluation_call", "evaluation_run"),
        )
    },
    "jobs.enrolling.few_images": "enrolling/test_enrol.py",
    **{
        f"training.enrolment.{name}": "enrolling/test_enrol.py"
        for name in (
            *("embedded", "enrolled_card", "head_rows"),
            *("known_points", "promises", "prototypes"),
        )
    },
    **{
        f"jobs.exporting.{name}": "exporting/test_export_sr.py"
        for name in (
            *("export_run", "header_sources", "report_header"),
            *("report_list", "structured_report", "studies"),
        )
    },
    "jobs.gallery": "reviewing/test_exemplars.py",
    "jobs.review": "reviewing/test_session.py",
    **{
        f"jobs.reviewing.{name}": f"reviewing/test_{by}.py"
        for name, by in (("cases", "workbench"), ("heat", "endpoints"), ("serve", "session"))
    },
    "jobs.explaining.explanations": "report/test_explain.py",
    "jobs.explaining.targets": "report/test_explain.py",
    "jobs.fitting.begun": "training/test_train.py",
    "jobs.fitting.read_images": "training/test_train.py",
    "jobs.fitting.training_call": "training/test_train.py",
    "jobs.fitting.training_run": "training/test_train.py",
    "jobs.pipeline.blocks": "pipeline/test_units.py",
    "jobs.pipeline.classify_options": "pipeline/test_classify.py",
    "jobs.pipeline.publisher": "pipeline/test_stages.py",
    "jobs.pipeline.recipe": "pipeline/test_units.py",
    "jobs.pipeline.source": "pipeline/test_units.py",
    "jobs.pipeline.summary": "pipeline/test_health.py",
    **{
        f"jobs.pages.{name}": "report/test_report.py"
        for name in ("comparison", "figures", "page", "run_facts", "run_page", "wording")
    },
    "jobs.pages.saliency_picture": "report/test_explain.py",
    "jobs.samples.demonstration": "samples/test_demo.py",
    "jobs.samples.sample_archives": "samples/test_samples.py",
    "jobs.samples.sample_audit": "samples/test_sample_registry.py",
    "jobs.samples.sample_check": "samples/test_demo.py",
    "jobs.samples.sample_members": "samples/test_samples.py",
    "jobs.tables.delta": "tables/test_publish.py",
    "jobs.tables.receipts": "pipeline/test_ledger.py",
    "jobs.tables.records": "pipeline/test_plan.py",
    "jobs.tables.schema": "tables/test_publish.py",
    "jobs.tables.unit_files": "tables/test_publish.py",
    "jobs.tables.verification": "tables/test_checksums.py",
    "jobs.verify": "pipeline/test_classify.py",
}
"""The test module of a module that has none of its own name in the folder of its subject."""
COMMANDS = {"jobs.verify": "pipeline/test_classify.py"}
"""Modules that a test runs as a command, and does not import."""


def has_its_own(name: str) -> bool:
    path = modules()[name]
    folder = path.parent.relative_to(ROOT).as_posix()
    if folder == "jobs":  # a command's tests lie with its subject
        return any(TESTS.glob(f"*/test_{path.stem}.py"))
    known = [own for below, own in FOLDERS.items() if f"{folder}/".startswith(f"{below}/")]
    last = path.parent.name
    return any((TESTS / own / f"test_{path.stem}.py").is_file() for own in {last, *known})


def those_with_a_subject() -> list[str]:
    return [name for name, path in modules().items() if path.name != "__init__.py"]


def test_each_module_has_its_tests() -> None:
    without = [name for name in those_with_a_subject() if not has_its_own(name)]
    assert sorted(set(without) - set(COVERED_BY)) == [], "write a test module, or name one"


def test_none_is_named_that_has_tests_of_its_own_or_is_gone() -> None:
    assert [name for name in COVERED_BY if name not in modules() or has_its_own(name)] == []


@pytest.mark.parametrize("test", sorted(set(COVERED_BY.values())))
def test_who_covers_a_module_comes_to_it(test: str) -> None:
    """Through what the test imports itself; a command it names."""
    edges = {**graph(), **helpers()}
    reached = reachable(set(imports(TESTS / test)), edges)
    for name in (name for name, by in COVERED_BY.items() if by == test):
        if name in COMMANDS:
            assert f'"{name}"' in (TESTS / test).read_text()
        else:
            assert name in reached, f"{test} does not come to {name}"


@functools.cache
def helpers() -> dict[str, frozenset[str]]:
    """What each module of the tests imports, by its name."""
    return {name_of(path): frozenset(imports(path)) for path in TESTS.rglob("*.py")}
